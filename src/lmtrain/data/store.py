"""The token store: Megatron's ``.bin/.idx`` pair, what belongs to each document, and a manifest.

A store is a folder::

    tokens.bin       ids of all documents in a row, uint16 up to 65,536 ids, else int32; content ids only
    tokens.idx       Megatron's index: where each document begins and how many tokens it has
    documents.bin    per document: UTF-8 bytes of its text (int64) and CRC-32 of them (uint32)
    manifest.json    what it was made of and with, sizes, checksums, ledger

Layout of ``tokens.idx`` (Megatron-LM, megatron/core/datasets/indexed_dataset.py), little endian::

    b"MMIDIDX\\0\\0" | version u64 = 1 | dtype code u8 | sequences u64 | documents u64 (= sequences + 1)
    lengths int32[sequences] | byte pointers int64[sequences] | document indices int64[documents] (0, 1, …)
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json, sha256_file, write_json

FORMAT = 1
BIN, IDX, DOCUMENTS, MANIFEST = "tokens.bin", "tokens.idx", "documents.bin", "manifest.json"
_HEADER = struct.Struct("<9sQBQQ")
_MAGIC = b"MMIDIDX\x00\x00"
_CODES: dict[int, type] = {8: np.uint16, 4: np.int32}
_RECORD = np.dtype([("n_bytes", "<i8"), ("crc32", "<u4")])
_CHUNK = 1 << 18  # documents handled at once when the index is written
_CHECK_DISK_EVERY = 64 << 20


class DamagedStoreError(UserError):
    """A store whose files do not fit together, or are not what was written."""


def token_dtype(n_ids: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if n_ids <= 65_536 else np.int32)


@contextmanager
def explaining_full_disks(folder: Path) -> Iterator[None]:
    """Turn "no space left" into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk of {folder} is full; nothing was left there. Free some space, or choose another disk",
            flag="--data_cache_dir",
        ) from error


def require_space(folder: Path, needed: int, what: str) -> None:
    """Stop before the work when the disk has not ``needed`` bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{what} needs about {needed / 1e6:,.0f} MB and the disk of {folder} has {free / 1e6:,.0f} MB "
            "left; free some space, or choose another disk",
            flag="--data_cache_dir",
        )


class StoreWriter:
    """Writes a store into an empty folder as a stream: memory does not grow with the corpus."""

    def __init__(self, folder: Path, n_ids: int) -> None:
        self.folder = folder
        self.n_ids = n_ids
        self.dtype = token_dtype(n_ids)
        self.n_documents = 0
        self.n_tokens = 0
        self.longest = 0
        self._digest = hashlib.sha256()
        self._open: tuple[int, int, int] | None = None  # tokens, bytes, crc of the document that may go on
        self._next_disk_check = 0
        self._bin: IO[bytes] = (folder / BIN).open("wb")
        self._lengths: IO[bytes] = (folder / "lengths.tmp").open("wb")
        self._documents: IO[bytes] = (folder / DOCUMENTS).open("wb")

    def append(
        self,
        ids: np.ndarray,
        offsets: np.ndarray,
        first: Sequence[bool],
        n_bytes: Sequence[int],
        crc32: Sequence[int],
    ) -> None:
        """Append encoded pieces of documents.

        ``ids`` and ``offsets`` as an encoder gives them for P pieces; ``first`` (P,) marks those that begin a
        document; ``n_bytes`` (P,) counts each piece's UTF-8 bytes; ``crc32`` (P,) is that of the document's
        bytes up to and including the piece.
        """
        if len(ids) and int(ids.max()) >= self.n_ids:
            raise ValueError(f"id {int(ids.max())} in a vocabulary of {self.n_ids}")
        data = ids.astype(self.dtype).data
        if self._bin.tell() >= self._next_disk_check:
            require_space(self.folder, len(data) * self.dtype.itemsize, "the token store")
            self._next_disk_check = self._bin.tell() + _CHECK_DISK_EVERY
        self._bin.write(data)
        self._digest.update(data)
        self.n_tokens += len(ids)
        lengths = np.diff(offsets).astype(np.int64)
        starts = np.flatnonzero(np.asarray(first, bool))
        head = int(starts[0]) if len(starts) else len(lengths)
        if head:  # pieces that go on with the last document
            if self._open is None:
                raise ValueError("the first piece of all does not begin a document")
            tokens, size, _ = self._open
            self._open = (tokens + int(lengths[:head].sum()), size + sum(n_bytes[:head]), crc32[head - 1])
        if not len(starts):
            return
        self._close_document()
        ends = np.append(starts[1:], len(lengths))
        counts = np.add.reduceat(lengths, starts)
        sizes = np.add.reduceat(np.asarray(n_bytes, np.int64), starts)
        crcs = np.asarray(crc32, np.uint32)[ends - 1]
        self._write_documents(counts[:-1], sizes[:-1], crcs[:-1])
        self._open = (int(counts[-1]), int(sizes[-1]), int(crcs[-1]))

    def _close_document(self) -> None:
        if self._open is not None:
            tokens, size, crc = self._open
            self._write_documents(np.array([tokens]), np.array([size]), np.array([crc], np.uint32))
            self._open = None

    def _write_documents(self, tokens: np.ndarray, sizes: np.ndarray, crcs: np.ndarray) -> None:
        if not len(tokens):
            return
        self.longest = max(self.longest, int(tokens.max()))
        if self.longest >= 1 << 31:
            raise UserError(
                f"a document has {self.longest:,} tokens and the store's format counts to 2,147,483,647; "
                "cut it into several files, or use --documents lines"
            )
        records = np.empty(len(tokens), _RECORD)
        records["n_bytes"], records["crc32"] = sizes, crcs
        self._documents.write(records.data)
        self._lengths.write(tokens.astype("<i4").data)
        self.n_documents += len(tokens)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the index and the manifest; the store is complete after this."""
        self._close_document()
        self.close()
        self._write_index()
        (self.folder / "lengths.tmp").unlink()
        digests = {BIN: self._digest.hexdigest()} | {n: sha256_file(self.folder / n) for n in (IDX, DOCUMENTS)}
        files = {n: {"bytes": (self.folder / n).stat().st_size, "sha256": digests[n]} for n in (BIN, IDX, DOCUMENTS)}
        counts = {"documents": self.n_documents, "tokens": self.n_tokens, "longest_document": self.longest}
        write_json(
            self.folder / MANIFEST,
            {
                "format": FORMAT,
                "dtype": self.dtype.name,
                "n_ids": self.n_ids,
                **counts,
                "files": files,
                **manifest,
            },
        )

    def _write_index(self) -> None:
        n = self.n_documents
        code = next(code for code, kind in _CODES.items() if self.dtype == kind)
        with (self.folder / IDX).open("wb") as out, (self.folder / "lengths.tmp").open("rb") as lengths:
            out.write(_HEADER.pack(_MAGIC, 1, code, n, n + 1))
            shutil.copyfileobj(lengths, out)
            lengths.seek(0)
            pointer = 0
            while part := lengths.read(4 * _CHUNK):
                ends = pointer + np.cumsum(np.frombuffer(part, "<i4"), dtype=np.int64) * self.dtype.itemsize
                starts = np.concatenate([np.array([pointer], np.int64), ends[:-1]])
                out.write(starts.astype("<i8").data)
                pointer = int(ends[-1])
            for start in range(0, n + 1, _CHUNK):
                out.write(np.arange(start, min(start + _CHUNK, n + 1), dtype="<i8").data)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for stream in (self._bin, self._lengths, self._documents):
            stream.close()


class TokenStore:
    """A store on disk, memory-mapped: opening it costs nothing however large it is.

    ``tokens`` (N,) uint16 or int32; ``lengths`` (D,) int32 tokens of each document; ``n_bytes`` (D,) int64
    UTF-8 bytes of its text; ``crc32`` (D,) uint32 of those bytes. Pickles as its path, so sending one to a
    loader's worker is cheap.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder.absolute()
        self.manifest = manifest
        self.tokens: np.ndarray = _map(folder / BIN, np.dtype(manifest["dtype"]))
        index: np.ndarray = _map(folder / IDX, np.dtype(np.uint8))
        n = manifest["documents"]
        at = _HEADER.size
        self.lengths = index[at : at + 4 * n].view("<i4")
        pointers = index[at + 4 * n : at + 12 * n].view("<i8")
        itemsize = self.tokens.dtype.itemsize
        self._pointers = pointers
        if n and (int(pointers[0]) != 0 or int(pointers[-1]) + int(self.lengths[-1]) * itemsize != self.tokens.nbytes):
            raise DamagedStoreError(_damage(folder, f"{IDX} points past the end of {BIN}"))
        records: np.ndarray = _map(folder / DOCUMENTS, _RECORD)
        self.n_bytes, self.crc32 = records["n_bytes"], records["crc32"]

    @classmethod
    def open(cls, folder: str | Path) -> TokenStore:
        """Open a store; sizes and headers are compared with the manifest. Raises
        :class:`DamagedStoreError`."""
        folder = Path(folder)
        if not (folder / MANIFEST).exists():
            raise DamagedStoreError(f"{folder} is no token store: it has no {MANIFEST}")
        try:
            manifest = read_json(folder / MANIFEST)
            if manifest["format"] != FORMAT:
                raise DamagedStoreError(
                    f"{folder} has store format {manifest['format']} and this version reads {FORMAT}; prepare it again"
                )
            sizes = {name: about["bytes"] for name, about in manifest["files"].items()}
            n, dtype = int(manifest["documents"]), np.dtype(manifest["dtype"])
            expected = {
                BIN: manifest["tokens"] * dtype.itemsize,
                IDX: _HEADER.size + 12 * n + 8 * (n + 1),
                DOCUMENTS: n * _RECORD.itemsize,
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedStoreError(_damage(folder, f"{MANIFEST} cannot be read ({error!r})")) from error
        for name, size in expected.items():
            file = folder / name
            if not file.exists():
                raise DamagedStoreError(_damage(folder, f"{name} is missing"))
            found = file.stat().st_size
            if found != size or sizes.get(name) != size:
                raise DamagedStoreError(_damage(folder, f"{name} has {found:,} bytes instead of {size:,}"))
        with (folder / IDX).open("rb") as stream:
            magic, version, code, sequences, documents = _HEADER.unpack(stream.read(_HEADER.size))
        if (magic, version, sequences, documents) != (_MAGIC, 1, n, n + 1) or _CODES.get(code) != dtype.type:
            raise DamagedStoreError(_damage(folder, f"the header of {IDX} does not fit {MANIFEST}"))
        return cls(folder, manifest)

    def verify(self) -> None:
        """Read every byte and compare the checksums; raises :class:`DamagedStoreError`."""
        for name, about in self.manifest["files"].items():
            if sha256_file(self.folder / name) != about["sha256"]:
                raise DamagedStoreError(_damage(self.folder, f"the bytes of {name} have changed since it was written"))

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.lengths)

    def starts(self, documents: np.ndarray | slice) -> np.ndarray:
        """Where the documents' tokens begin in ``tokens``: int64."""
        return self._pointers[documents] // self.tokens.dtype.itemsize

    def document(self, number: int) -> np.ndarray:
        """Ids of one document: a view of shape (length,)."""
        start = int(self._pointers[number]) // self.tokens.dtype.itemsize
        return self.tokens[start : start + int(self.lengths[number])]

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenStore.open, (self.folder,)


def _map(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))


def _damage(folder: Path, what: str) -> str:
    return f"the token store {folder} is damaged: {what}; prepare it again with --overwrite_cache"
