"""Pairs that are token ids already: checked and copied into a store, without a tokenizer at work."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from lmtrain.core.console import Say, silent
from lmtrain.core.files import atomic_folder, sha256_json
from lmtrain.core.types import Tally
from lmtrain.data.cache import locked, store_folder
from lmtrain.data.ledger import Ledger
from lmtrain.data.preparing import Prepared, versions
from lmtrain.data.preparing.finding import MADE_AGAIN
from lmtrain.data.preparing.manifest import nothing_in
from lmtrain.data.sources.pairs import PairSource
from lmtrain.data.store import (
    FORMAT,
    MANIFEST,
    DamagedStoreError,
    TokenStore,
    explaining_full_disks,
)
from lmtrain.data.store_writer import StoreWriter
from lmtrain.data.tokenizer_files import TokenizerFiles

_BATCH = 2048  # pairs written at once


def prepare_encoded(
    sources: Sequence[PairSource],
    tokenizer: TokenizerFiles,
    cache: Path,
    *,
    overwrite: bool = False,
    say: Say = silent,
) -> Prepared:
    """The store of encoded pairs, as :func:`~lmtrain.data.preparing.prepare` makes that of text.

    The bytes of the text behind the ids are not known and stored as 0. Raises
    :class:`~lmtrain.core.errors.UserError` for ids that are not in the vocabulary, and where there is no pair.
    """
    hashes = [source.content_hash() for source in sources]
    reading = {"encoded": [[*source.columns.names, source.skips] for source in sources]}
    key = sha256_json({"format": FORMAT, "sources": hashes, "reading": reading, "n_ids": tokenizer.n_ids})
    target = store_folder(cache, key)
    if not overwrite and (found := _find(target, cache, say)):
        return found
    with locked(cache, key, "another process is preparing these pairs; waiting for it"):
        if not overwrite and (found := _find(target, cache, say)):
            return found  # the other process has made it
        began = time.perf_counter()
        target.parent.mkdir(parents=True, exist_ok=True)
        tally, documents = Tally(), []
        with (
            explaining_full_disks(target.parent),
            atomic_folder(target) as scratch,
            StoreWriter(scratch, tokenizer.n_ids) as writer,
        ):
            for source in sources:
                before = tally.documents
                _copy(source, writer, tally)
                documents.append(2 * (tally.documents - before))
            ledger = Ledger.of(tally, writer.n_tokens)
            if not tally.documents:  # a store of nothing would be found again and again
                raise nothing_in(sources, ledger, "pair")
            writer.finish(
                {
                    "key": key,
                    "sources": [
                        {"name": source.name, "sha256": sha, "bytes": 0, "documents": count}
                        for source, sha, count in zip(sources, hashes, documents, strict=True)
                    ],
                    "text_bytes": 0,
                    "cut": None,
                    "tokenizer": {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint},
                    "reading": reading,
                    "engine": {"name": "none", "why": ["the pairs were encoded before"]},
                    "ledger": ledger.as_json(),
                    "versions": versions(),
                    "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                }
            )
        say("store", f"{ledger.tokens:,} tokens in {time.perf_counter() - began:.1f} s · {target}")
        return Prepared(TokenStore.open(target), ledger, False)


def _find(target: Path, cache: Path, say: Say) -> Prepared | None:
    if not (target / MANIFEST).exists():
        return None
    try:
        store = TokenStore.open(target)
        store.watch(cache, MADE_AGAIN)
    except DamagedStoreError as error:
        say("store", f"{error.found}; making it again")
        return None
    return Prepared(store, Ledger.of_store(store.manifest), True)


def _copy(source: PairSource, writer: StoreWriter, tally: Tally) -> None:
    pairs = source.encoded(tally, writer.n_ids)
    while batch := list(islice(pairs, _BATCH)):
        documents = [np.asarray(ids, np.uint32) for pair in batch for ids in pair]
        offsets = np.zeros(len(documents) + 1, np.int64)
        np.cumsum([len(ids) for ids in documents], out=offsets[1:])
        crcs = [zlib.crc32(ids.tobytes()) for ids in documents]
        n = len(documents)
        writer.append(np.concatenate(documents), offsets, [True] * n, [0] * n, crcs)
