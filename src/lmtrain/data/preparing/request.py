"""What to prepare, how, and the key of its store.

The key is content: the hashes of the sources in their order, the settings that change documents, the tokenizer's
fingerprint, the format. Paths and dates are not in it, so moving or touching files redoes nothing, and one changed
byte redoes what it must.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any, Literal

from lmtrain.core.files import sha256_json
from lmtrain.core.types import Source
from lmtrain.data.ledger import Ledger
from lmtrain.data.store import FORMAT, TokenStore
from lmtrain.data.tokenizer_files import TokenizerFiles

SEGMENT = 4 << 20
"""Bytes on disk after which a source is entered anew, where it can be."""
_RECORD_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather")


@dataclass(frozen=True)
class Making:
    """How a store is made; nothing of it changes what is in the store.

    ``workers``: processes that each read and encode with one thread; None: one process that reads while an engine
    encodes on all cores. ``engine``: who runs the workers. ``merge``: of how many shards, made before; None: of the
    sources. ``segment_bytes``: see :data:`SEGMENT`.
    """

    workers: int | None = None
    engine: Literal["local", "ray"] = "local"
    merge: int | None = None
    segment_bytes: int = SEGMENT


@dataclass(frozen=True)
class Request:
    """What to prepare.

    ``reading`` are the settings that change which documents come out of the sources. ``cut_percentage``: when
    the first so many per cent of the *documents* are none, the text is cut at a line break after so many per
    cent of its *bytes*, and the two sides are stored as two documents (0: never).
    """

    sources: Sequence[Source]
    tokenizer: TokenizerFiles
    reading: Mapping[str, Any] = field(default_factory=dict)
    cut_percentage: float = 0.0
    making: Making = Making()

    def key(self, hashes: Sequence[str], cut_percentage: float) -> str:
        """Of the store of sources with these hashes."""
        return sha256_json(
            {
                "format": FORMAT,
                "sources": hashes,
                "kinds": self.kinds(),
                "reading": dict(self.reading),
                "tokenizer": self.tokenizer.fingerprint,
                "cut": cut_percentage,
            }
        )

    def kinds(self) -> list[str]:
        return [_kind(source) for source in self.sources]


def _kind(source: Source) -> str:
    """How a source's bytes are parsed: the same bytes are other documents as text than as JSON Lines."""
    path = PurePath(source.name.lower())
    if path.suffix in (".gz", ".xz", ".zst"):
        path = path.with_suffix("")
    return type(source).__name__ + (path.suffix if path.suffix in _RECORD_SUFFIXES else "")


@dataclass(frozen=True)
class Prepared:
    """A store, its account, whether it was there before, and the lines that the work gave rise to."""

    store: TokenStore
    ledger: Ledger
    was_cached: bool
    lines: tuple[str, ...] = ()


def versions() -> dict[str, str]:
    """Of the interpreter and of what makes tokens, for a manifest."""
    found = {"python": platform.python_version()}
    for name in ("lmtrain", "tokenizers", "fastokens", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def flag_of(folder: Path | None) -> str:
    """Which option says where a store is made: in ``folder``, or (None) in the cache."""
    return "--output_dir" if folder else "--data_cache_dir"
