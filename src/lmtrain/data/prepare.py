"""Sources and a tokenizer in, a token store out; the same work is never done twice.

The key of a store is content: the hashes of the sources in their order, the settings that change documents,
the tokenizer's fingerprint, the format. Paths and dates are not in it, so moving or touching files redoes
nothing, and one changed byte redoes what it must.
"""

from __future__ import annotations

import platform
import random
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from lmtrain.core.console import Say, silent
from lmtrain.core.errors import UserError
from lmtrain.core.files import atomic_folder, sha256_json
from lmtrain.core.types import Piece, Source, Tally
from lmtrain.data.cache import elsewhere, locked, remember_elsewhere, store_folder
from lmtrain.data.cutting import Cut, cut_pieces, find_cut
from lmtrain.data.ledger import Ledger
from lmtrain.data.seams import Seams
from lmtrain.data.splits import first_count
from lmtrain.data.store import (
    FORMAT,
    MANIFEST,
    DamagedStoreError,
    StoreWriter,
    TokenStore,
    explaining_full_disks,
    require_space,
    token_dtype,
)
from lmtrain.data.tokenization import (
    DiffersError,
    Encoder,
    Proof,
    choose_encoder,
    reference_encoder,
)
from lmtrain.data.tokenizer_files import TokenizerFiles

_BATCH = 2 << 20  # characters encoded at once: enough for all cores, little enough to be no memory
_CHECKED = 2048  # characters of each batch that the plain engine encodes too
_SAMPLED_SOURCES = 40
_RECORD_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather")


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


@dataclass(frozen=True)
class Prepared:
    """A store, its account, whether it was there before, and the lines that the work gave rise to."""

    store: TokenStore
    ledger: Ledger
    was_cached: bool
    lines: tuple[str, ...] = ()


def prepare(
    request: Request, cache: Path, *, folder: Path | None = None, overwrite: bool = False, say: Say = silent
) -> Prepared:
    """The store of ``request``: found in ``cache`` (or at ``folder``), or made there.

    With ``folder`` the store is made there and not in the cache, which only notes where it is. Raises
    :class:`UserError`.
    """
    hashes = [source.content_hash() for source in request.sources]
    plain_key = _key(request, hashes, 0.0)
    cut_key = _key(request, hashes, request.cut_percentage)
    if not overwrite and (found := _find(request, cache, folder, plain_key, cut_key, say)):
        return found
    waiting = "another process is preparing this text; waiting for it"
    with locked(cache, sha256_json(str(folder.absolute())) if folder else cut_key, waiting):
        if not overwrite and (found := _find(request, cache, folder, plain_key, cut_key, say)):
            return found  # the other process has made it
        cut = find_cut(request.sources, request.cut_percentage)
        key = cut_key if cut else plain_key
        target = folder or store_folder(cache, key)
        if folder:
            _require_free(folder, overwrite)
        try:
            made = _make(request, hashes, key, target, cut, say)
        except PermissionError as error:
            raise UserError(
                f"{target} cannot be written ({error.strerror})",
                flag="--output_dir" if folder else "--data_cache_dir",
            ) from error
        if folder:
            remember_elsewhere(cache, key, folder)
        return made


def _require_free(folder: Path, overwrite: bool) -> None:
    """Never write over what is not ours to replace."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MANIFEST).exists():
        raise UserError(f"{folder} holds something that is no token store; name another folder", flag="--output_dir")
    if not overwrite:
        raise UserError(
            f"{folder} is the store of another text or tokenizer; name another folder, or replace it with "
            "--overwrite_cache",
            flag="--output_dir",
        )


def _key(request: Request, hashes: Sequence[str], cut_percentage: float) -> str:
    kinds = [_kind(source) for source in request.sources]
    return sha256_json(
        {
            "format": FORMAT,
            "sources": hashes,
            "kinds": kinds,
            "reading": dict(request.reading),
            "tokenizer": request.tokenizer.fingerprint,
            "cut": cut_percentage,
        }
    )


def _kind(source: Source) -> str:
    """How a source's bytes are parsed: the same bytes are other documents as text than as JSON Lines."""
    path = PurePath(source.name.lower())
    if path.suffix in (".gz", ".xz", ".zst"):
        path = path.with_suffix("")
    return type(source).__name__ + (path.suffix if path.suffix in _RECORD_SUFFIXES else "")


def _find(
    request: Request, cache: Path, folder: Path | None, plain_key: str, cut_key: str, say: Say
) -> Prepared | None:
    """A finished store of this request, or None."""
    for key in dict.fromkeys((cut_key, plain_key)):
        place = folder or store_folder(cache, key)
        if not folder and not (place / MANIFEST).exists():
            place = elsewhere(cache, key) or place
        if not (place / MANIFEST).exists():
            continue
        try:
            store = TokenStore.open(place)
        except DamagedStoreError as error:
            if folder:
                raise
            say("store", f"{error}; making it again")
            continue
        if store.manifest.get("key") != key:
            continue
        if key == plain_key != cut_key:  # made for another percentage: is it right for this one?
            count = first_count(request.cut_percentage, len(store))
            if not 0 < count < len(store):
                continue
        return Prepared(store, Ledger.from_manifest(store.manifest["ledger"]), True)
    return None


def _make(request: Request, hashes: Sequence[str], key: str, target: Path, cut: Cut | None, say: Say) -> Prepared:
    began = time.perf_counter()
    if request.tokenizer.fast:
        request.tokenizer.fast.start()
    sample = _sample(request.sources, seed=key)
    encoder, proof, line = choose_encoder(request.tokenizer, sample)
    lines = [line]
    target.parent.mkdir(parents=True, exist_ok=True)
    _estimate_space(request, encoder, sample, target.parent)
    with explaining_full_disks(target.parent):
        try:
            ledger = _write(request, hashes, key, target, cut, encoder, proof, lines)
        except DiffersError as error:  # a place that the first proof did not see
            lines[:] = [f"fastokens not used: {error}; tokenizers tokenizes, slower"]
            plain = reference_encoder(request.tokenizer)
            ledger = _write(request, hashes, key, target, cut, plain, None, lines)
    seconds = time.perf_counter() - began
    store = TokenStore.open(target)
    size = store.manifest["text_bytes"] / 1e6
    speed = f" ({size / seconds:.0f} MB/s)" if size >= 1 else ""  # of less it would say nothing
    for text in lines:
        say("tokenizer", text)
    say("store", f"{ledger.tokens:,} tokens in {seconds:.1f} s{speed} · {target}")
    return Prepared(store, ledger, False, tuple(lines))


def _sample(sources: Sequence[Source], seed: str) -> list[str]:
    """The beginning of the corpus, and places all over it: texts that the engines are compared on first."""
    draw = random.Random(seed)
    chosen = sorted(draw.sample(range(len(sources)), min(_SAMPLED_SOURCES, len(sources))))
    texts = []
    for source, count in [(sources[0], 8), *((sources[i], 1) for i in chosen)]:
        with closing(_generator(source.pieces(Tally()))) as pieces:
            for piece in islice(pieces, count):
                length = 4096 if count > 1 else 2048
                start = 0 if count > 1 else draw.randrange(max(1, len(piece.text) - length))
                texts.append(piece.text[start : start + length])
    return texts


def _generator(pieces: Iterable[Piece]) -> Any:
    """``pieces`` as something with ``close()``, so that a half-read file is closed."""
    return pieces if hasattr(pieces, "close") else (piece for piece in pieces)


def _estimate_space(request: Request, encoder: Encoder, sample: Sequence[str], folder: Path) -> None:
    """Stop before the work when the disk cannot hold the result (packed files are larger than they look)."""
    size = 0
    for source in request.sources:
        with suppress(OSError, ValueError):  # standard input, a data set: not known
            size += Path(source.name).stat().st_size
    sampled = sum(len(text.encode("utf-8")) for text in sample)
    if size and sampled:
        tokens = size * len(encoder.encode(sample)[0]) / sampled
        require_space(folder, int(tokens * token_dtype(request.tokenizer.n_ids).itemsize), "the token store")


@dataclass
class _Batch:
    """Pieces on their way to the encoder; the lists have one entry a piece (see StoreWriter.append)."""

    texts: list[str] = field(default_factory=list)
    first: list[bool] = field(default_factory=list)
    n_bytes: list[int] = field(default_factory=list)
    crc32: list[int] = field(default_factory=list)
    size: int = 0


def _batches(pieces: Iterable[tuple[str, bool]]) -> Iterator[_Batch]:
    batch, crc = _Batch(), 0
    for text, first in pieces:
        data = text.encode("utf-8")
        crc = zlib.crc32(data, 0 if first else crc)
        batch.texts.append(text)
        batch.first.append(first)
        batch.n_bytes.append(len(data))
        batch.crc32.append(crc)
        batch.size += len(text) + 16
        if batch.size >= _BATCH:
            yield batch
            batch = _Batch()
    if batch.texts:
        yield batch


class _Counted:
    """All pieces of all sources in order, counted for each source."""

    def __init__(self, sources: Sequence[Source], cut: Cut | None, tally: Tally) -> None:
        self.sources, self.cut, self.tally = sources, cut, tally
        self.documents = [0] * len(sources)
        self.bytes = [0] * len(sources)

    def __iter__(self) -> Iterator[Piece]:
        for number, source in enumerate(self.sources):
            pieces: Iterable[Piece] = source.pieces(self.tally)
            if self.cut and self.cut.source == number:
                pieces = cut_pieces(pieces, self.cut)
            for piece in pieces:
                self.documents[number] += piece.first
                self.bytes[number] += piece.n_bytes
                yield piece


def _write(
    request: Request,
    hashes: Sequence[str],
    key: str,
    target: Path,
    cut: Cut | None,
    encoder: Encoder,
    proof: Proof | None,
    lines: list[str],
) -> Ledger:
    tally = Tally()
    counted = _Counted(request.sources, cut, tally)
    seams = Seams(reference_encoder(request.tokenizer))
    encode = _checked(encoder, proof, key)
    with (
        atomic_folder(target) as scratch,
        ThreadPoolExecutor(1) as worker,
        StoreWriter(scratch, request.tokenizer.n_ids) as writer,
    ):
        under_way: tuple[Future[Any], _Batch] | None = None
        for batch in _batches(seams.proven(counted)):  # read here while the worker encodes the batch before
            future = worker.submit(encode, batch.texts)
            if under_way:
                _append(writer, *under_way)
            under_way = (future, batch)
        if under_way:
            _append(writer, *under_way)
        if proof:
            lines[0] = proof.line
        if seams.line:
            lines.append(seams.line)
        ledger = Ledger.of(tally, writer.n_tokens)
        writer.finish(
            {
                "key": key,
                "sources": [
                    {"name": s.name, "sha256": sha, "bytes": size, "documents": count}
                    for s, sha, size, count in zip(
                        request.sources, hashes, counted.bytes, counted.documents, strict=True
                    )
                ],
                "text_bytes": sum(counted.bytes),
                "cut": cut.as_json() if cut else None,
                "tokenizer": {
                    "name": request.tokenizer.name,
                    "fingerprint": request.tokenizer.fingerprint,
                },
                "reading": dict(request.reading),
                "engine": {"name": encoder.name, "why": lines},
                "ledger": replace(ledger, splits={}).as_json(),
                "versions": versions(),
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
        )
    return ledger


def _append(writer: StoreWriter, future: Future[Any], batch: _Batch) -> None:
    ids, offsets = future.result()
    writer.append(ids, offsets, batch.first, batch.n_bytes, batch.crc32)


def _checked(encoder: Encoder, proof: Proof | None, seed: str) -> Callable[[list[str]], Any]:
    """Encode a batch; with a proof also compare a random place of it."""
    draw = random.Random(f"{seed}/batches")

    def encode(texts: list[str]) -> Any:
        if proof:
            text = texts[draw.randrange(len(texts))]
            start = draw.randrange(max(1, len(text) - _CHECKED))
            proof.check([text[start : start + _CHECKED]])
        return encoder.encode(texts)

    return encode


def versions() -> dict[str, str]:
    """Of the interpreter and of what makes tokens, for a manifest."""
    found = {"python": platform.python_version()}
    for name in ("lmtrain", "tokenizers", "fastokens", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
