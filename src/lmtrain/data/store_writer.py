"""Writing a token store as a stream, from encoded pieces and from parts that others wrote; for its files see store."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from lmtrain.core.errors import UserError
from lmtrain.core.files import sha256_file, write_json
from lmtrain.data.crc32 import ChunkSums, crc32_combine
from lmtrain.data.store import (
    BIN,
    CHUNK_BYTES,
    CODES,
    DOCUMENTS,
    FORMAT,
    HEADER,
    IDX,
    MAGIC,
    MANIFEST,
    RECORD,
    token_dtype,
)

_CHUNK = 1 << 18  # documents handled at once
_COPIED = 1 << 20  # bytes of tokens copied at once
_FLUSHED_EVERY = 64 << 20  # bytes of tokens
LENGTHS = "lengths.tmp"


class DocumentWriter:
    """Writes encoded documents into a folder as a stream, over those of an earlier one: memory does not grow with the
    corpus.

    ``tokens.bin`` and ``documents.bin`` are those of a store; ``lengths.tmp`` holds each document's tokens, int32.
    ``continues``: the first piece of all may go on with a document whose beginning is elsewhere. Of that document this
    writer counts only what it got, and ``continued`` is then True.
    """

    def __init__(self, folder: Path, n_ids: int, *, continues: bool = False) -> None:
        self.folder = folder
        self.n_ids = n_ids
        self.dtype = token_dtype(n_ids)
        self.n_documents = 0
        self.n_tokens = 0
        self.longest = 0
        self.continued = False
        self._may_continue = continues
        self._open: tuple[int, int, int] | None = None  # tokens, bytes, crc of the document that may go on
        self._streams = [_over(folder / name) for name in (BIN, LENGTHS, DOCUMENTS)]
        self._bin, self._lengths, self._documents = self._streams

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
        self._write_tokens(ids.astype(self.dtype).data.cast("B"))
        lengths = np.diff(offsets).astype(np.int64)
        starts = np.flatnonzero(np.asarray(first, bool))
        head = int(starts[0]) if len(starts) else len(lengths)
        if head:  # pieces that go on with the last document
            tokens, size, _ = self._going_on()
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

    def _write_tokens(self, data: memoryview) -> None:
        """``data``: bytes of ids."""
        self._bin.write(data)
        self.n_tokens += len(data) // self.dtype.itemsize

    def append_part(self, folder: Path, continued: bool, digest: Any = None) -> None:
        """Append what a :class:`DocumentWriter` wrote into ``folder``.

        ``continued``: its first document goes on with the last one here. ``digest`` (of hashlib) gets the bytes of its
        tokens, as they were read.
        """
        buffer = memoryview(bytearray(_COPIED))
        with (folder / BIN).open("rb", buffering=0) as stream:
            while size := stream.readinto(buffer):
                if digest is not None:
                    digest.update(buffer[:size])
                self._write_tokens(buffer[:size])
        with (folder / LENGTHS).open("rb") as lengths, (folder / DOCUMENTS).open("rb") as documents:
            while part := lengths.read(4 * _CHUNK):
                tokens = np.frombuffer(part, "<i4").astype(np.int64)
                records = np.frombuffer(documents.read(len(tokens) * RECORD.itemsize), RECORD)
                self._append_documents(tokens, records, continued)
                continued = False

    def _append_documents(self, tokens: np.ndarray, records: np.ndarray, continued: bool) -> None:
        if continued:
            before, size, crc = self._going_on()
            more = int(records["n_bytes"][0])
            joined = crc32_combine(crc, int(records["crc32"][0]), more)
            self._open = (before + int(tokens[0]), size + more, joined)
            tokens, records = tokens[1:], records[1:]
        if len(tokens):
            self._close_document()
            self._write_documents(tokens[:-1], records["n_bytes"][:-1], records["crc32"][:-1])
            self._open = (int(tokens[-1]), int(records["n_bytes"][-1]), int(records["crc32"][-1]))

    def _going_on(self) -> tuple[int, int, int]:
        """The document that is not complete: its tokens, bytes and CRC so far."""
        if self._open is None:
            if not self._may_continue or self.n_documents:
                raise ValueError("the first piece of all does not begin a document")
            self.continued, self._open = True, (0, 0, 0)
        return self._open

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
        records = np.empty(len(tokens), RECORD)
        records["n_bytes"], records["crc32"] = sizes, crcs
        self._documents.write(records.data)
        self._lengths.write(tokens.astype("<i4").data)
        self.n_documents += len(tokens)

    def end(self) -> None:
        """The last document is complete."""
        self._close_document()
        for stream in self._streams:
            stream.truncate()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


def _over(file: Path) -> IO[bytes]:
    """Open for writing from its beginning; what it holds behind that stays until it is cut off."""
    return file.open("r+b" if file.exists() else "wb")


class StoreWriter(DocumentWriter):
    """Writes a whole store: the index and the manifest too."""

    def __init__(self, folder: Path, n_ids: int) -> None:
        super().__init__(folder, n_ids)
        self._digest = hashlib.sha256()
        self._chunks = ChunkSums(CHUNK_BYTES)
        self._flushing = ThreadPoolExecutor(1)
        self._flushed: Future[None] | None = None
        self._next_flush = _FLUSHED_EVERY

    def _write_tokens(self, data: memoryview) -> None:
        super()._write_tokens(data)
        self._digest.update(data)
        self._chunks.update(data)
        if self.n_tokens * self.dtype.itemsize >= self._next_flush:
            self._next_flush += _FLUSHED_EVERY
            self._begin_flushing()

    def _begin_flushing(self) -> None:
        """Flush beside the work what was written so far: then little is left for the end.

        Raises ``OSError`` where the last flush failed: it is said only once.
        """
        if self._flushed is None or self._flushed.done():
            self._require_flushed()
            self._flushed = self._flushing.submit(os.fsync, self._bin.fileno())

    def _require_flushed(self) -> None:
        if self._flushed is not None:
            self._flushed.result()

    def end(self) -> None:
        self._require_flushed()
        super().end()

    def close(self) -> None:
        self._flushing.shutdown()
        super().close()

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the index and the manifest; the store is complete after this."""
        self.end()
        self._write_index()
        (self.folder / LENGTHS).unlink()
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
                "chunks": self._chunks.as_json(),
                **manifest,
            },
        )

    def _write_index(self) -> None:
        n = self.n_documents
        code = next(code for code, kind in CODES.items() if self.dtype == kind)
        with (self.folder / IDX).open("wb") as out, (self.folder / LENGTHS).open("rb") as lengths:
            out.write(HEADER.pack(MAGIC, 1, code, n, n + 1))
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
