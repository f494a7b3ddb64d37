"""The token store: Megatron's ``.bin/.idx`` pair, what belongs to each document, and a manifest.

A store is a folder::

    tokens.bin       ids of all documents in a row, uint16 up to 65,536 ids, else int32; content ids only
    tokens.idx       Megatron's index: where each document begins and how many tokens it has
    documents.bin    per document: UTF-8 bytes of its text (int64) and CRC-32 of them (uint32)
    manifest.json    what it was made of and with, sizes, checksums (of each 32 MB of tokens.bin too), ledger

Layout of ``tokens.idx`` (Megatron-LM, megatron/core/datasets/indexed_dataset.py), little endian::

    b"MMIDIDX\\0\\0" | version u64 = 1 | dtype code u8 | sequences u64 | documents u64 (= sequences + 1)
    lengths int32[sequences] | byte pointers int64[sequences] | document indices int64[documents] (0, 1, …)
"""

from __future__ import annotations

import errno
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json, sha256_file

FORMAT = 1
BIN, IDX, DOCUMENTS, MANIFEST = "tokens.bin", "tokens.idx", "documents.bin", "manifest.json"
HEADER = struct.Struct("<9sQBQQ")
MAGIC = b"MMIDIDX\x00\x00"
CODES: dict[int, type] = {8: np.uint16, 4: np.int32}
RECORD = np.dtype([("n_bytes", "<i8"), ("crc32", "<u4")])
CHUNK_BYTES = 32 << 20  # of tokens.bin, with a checksum of its own: what is fetched at once from object storage


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


class TokenStore:
    """A store on disk, memory-mapped: opening it costs nothing however large it is.

    ``tokens`` (N,) uint16 or int32; ``lengths`` (D,) int32 tokens of each document; ``n_bytes`` (D,) int64
    UTF-8 bytes of its text; ``crc32`` (D,) uint32 of those bytes. Pickles as its path, so sending one to a
    loader's worker is cheap.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], tokens: Any = None) -> None:
        """``tokens``: what stands for those of ``folder``, where they lie elsewhere."""
        self.folder = folder.absolute()
        self.manifest = manifest
        self.tokens: np.ndarray = _map(folder / BIN, np.dtype(manifest["dtype"])) if tokens is None else tokens
        index: np.ndarray = _map(folder / IDX, np.dtype(np.uint8))
        n = manifest["documents"]
        at = HEADER.size
        self.lengths = index[at : at + 4 * n].view("<i4")
        pointers = index[at + 4 * n : at + 12 * n].view("<i8")
        itemsize = self.tokens.dtype.itemsize
        self._pointers = pointers
        if n and (int(pointers[0]) != 0 or int(pointers[-1]) + int(self.lengths[-1]) * itemsize != self.tokens.nbytes):
            raise DamagedStoreError(_damage(folder, f"{IDX} points past the end of {BIN}"))
        records: np.ndarray = _map(folder / DOCUMENTS, RECORD)
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
            expected = cls.sizes_of(manifest, str(folder))
            sizes = {name: about["bytes"] for name, about in manifest["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedStoreError(_damage(folder, f"{MANIFEST} cannot be read ({error!r})")) from error
        for name, size in expected.items():
            file = folder / name
            if not file.exists():
                raise DamagedStoreError(_damage(folder, f"{name} is missing"))
            found = file.stat().st_size
            if found != size or sizes.get(name) != size:
                raise DamagedStoreError(_damage(folder, f"{name} has {found:,} bytes instead of {size:,}"))
        cls.require_header(folder, manifest)
        return cls(folder, manifest)

    @staticmethod
    def sizes_of(manifest: dict[str, Any], name: str) -> dict[str, int]:
        """Bytes of each file of a store with this manifest; raises :class:`DamagedStoreError` for another format, and
        what Python raises for a manifest that is none."""
        if manifest["format"] != FORMAT:
            raise DamagedStoreError(
                f"{name} has store format {manifest['format']} and this version reads {FORMAT}; prepare it again"
            )
        n, dtype = int(manifest["documents"]), np.dtype(manifest["dtype"])
        return {
            BIN: manifest["tokens"] * dtype.itemsize,
            IDX: HEADER.size + 12 * n + 8 * (n + 1),
            DOCUMENTS: n * RECORD.itemsize,
        }

    @staticmethod
    def require_header(folder: Path, manifest: dict[str, Any]) -> None:
        """Raise :class:`DamagedStoreError` where the index in ``folder`` is not of this manifest."""
        n, dtype = int(manifest["documents"]), np.dtype(manifest["dtype"])
        with (folder / IDX).open("rb") as stream:
            magic, version, code, sequences, documents = HEADER.unpack(stream.read(HEADER.size))
        if (magic, version, sequences, documents) != (MAGIC, 1, n, n + 1) or CODES.get(code) != dtype.type:
            raise DamagedStoreError(_damage(folder, f"the header of {IDX} does not fit {MANIFEST}"))

    def verify(self) -> None:
        """Read every byte and compare the checksums; raises :class:`DamagedStoreError`."""
        for name, about in self.manifest["files"].items():
            if sha256_file(self.folder / name) != about["sha256"]:
                raise DamagedStoreError(_damage(self.folder, f"the bytes of {name} have changed since it was written"))

    @property
    def place(self) -> str:
        """Where it lies, as it may be shown."""
        return str(self.folder)

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.lengths)

    def starts(self, documents: np.ndarray | slice) -> np.ndarray:
        """Where the documents' tokens begin in ``tokens``: int64."""
        return self._pointers[documents] // self.tokens.dtype.itemsize

    def document(self, number: int, first: int = 0, last: int | None = None) -> np.ndarray:
        """Ids of one document, or of its tokens from ``first`` to before ``last``: a view of shape (length,)."""
        start = int(self._pointers[number]) // self.tokens.dtype.itemsize
        length = int(self.lengths[number])
        return self.tokens[start + min(first, length) : start + min(length, length if last is None else last)]

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenStore.open, (self.folder,)


def _map(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))


def _damage(folder: Path, what: str) -> str:
    return f"the token store {folder} is damaged: {what}; prepare it again with --overwrite_cache"
