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
import mmap
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lmtrain.core.console import amount
from lmtrain.core.errors import UserError
from lmtrain.core.files import NO_RIGHT, read_json
from lmtrain.data.checksums import AT_ONCE, DamagedStoreError, Watch, difference, stamp_of

FORMAT = 1
BIN, IDX, DOCUMENTS, MANIFEST = "tokens.bin", "tokens.idx", "documents.bin", "manifest.json"
HEADER = struct.Struct("<9sQBQQ")
MAGIC = b"MMIDIDX\x00\x00"
CODES: dict[int, type] = {8: np.uint16, 4: np.int32}
RECORD = np.dtype([("n_bytes", "<i8"), ("crc32", "<u4")])
REMEDY = "prepare it again with --overwrite_cache"
CHUNK_BYTES = 32 << 20  # of tokens.bin, with a checksum of its own: what is fetched at once from object storage


def token_dtype(n_ids: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if n_ids <= 65_536 else np.int32)


@contextmanager
def explaining_disks(folder: Path, flag: str = "--data_cache_dir") -> Iterator[None]:
    """Turn "no space left" and "no right to write" below ``folder`` into one clear line about ``flag``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = f"the disk of {folder} is full; nothing was left there. Free some space, or choose another disk"
        elif error.errno in (*NO_RIGHT, errno.ENOTDIR, errno.EEXIST) and error.filename:  # else it is about no file
            said = f"{folder} cannot be written ({error.strerror})"
        else:
            raise
        raise UserError(said, flag=flag) from error


def require_space(folder: Path, needed: int, what: str, flag: str = "--data_cache_dir") -> None:
    """Stop before the work when the disk has not ``needed`` bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{what} needs about {amount(needed, 'B')} and the disk of {folder} has {amount(free, 'B')} left; "
            "free some space, or choose another disk",
            flag=flag,
        )


class TokenStore:
    """A store on disk, memory-mapped: opening it costs next to nothing however large it is.

    ``tokens`` (N,) uint16 or int32; ``lengths`` (D,) int32 tokens of each document; ``n_bytes`` (D,) int64
    UTF-8 bytes of its text; ``crc32`` (D,) uint32 of those bytes. Pickles as its path, so sending one to a
    loader's worker is cheap. Reading ``tokens`` raises :class:`DamagedStoreError` once it is known that the bytes
    are not what was written; see checksums.
    """

    is_remote = False  # its tokens are fetched when they are asked for

    def __init__(self, folder: Path, manifest: dict[str, Any], tokens: Any = None) -> None:
        """``tokens``: what stands for those of ``folder``, where they lie elsewhere."""
        self.folder = folder.absolute()
        self.manifest = manifest
        self._tokens: np.ndarray = _map(folder / BIN, np.dtype(manifest["dtype"])) if tokens is None else tokens
        self._watch: Watch | None = None
        index: np.ndarray = _map(folder / IDX, np.dtype(np.uint8))
        n = manifest["documents"]
        at = HEADER.size
        self.lengths = index[at : at + 4 * n].view("<i4")
        pointers = index[at + 4 * n : at + 12 * n].view("<i8")
        itemsize = self._tokens.dtype.itemsize
        self._pointers = pointers
        if n and (int(pointers[0]) != 0 or int(pointers[-1]) + int(self.lengths[-1]) * itemsize != self._tokens.nbytes):
            raise _damage(folder, f"{IDX} points past the end of {BIN}")
        records: np.ndarray = _map(folder / DOCUMENTS, RECORD)
        self.n_bytes, self.crc32 = records["n_bytes"], records["crc32"]

    @classmethod
    def open(cls, folder: str | Path) -> TokenStore:
        """Open a store; sizes and headers are compared with the manifest, and the bytes of files of up to ``AT_ONCE``
        bytes with their checksums (:meth:`watch` is for larger ones). Raises :class:`DamagedStoreError`."""
        store = cls._opened(Path(folder))
        for name in store._files(large=False):
            if wrong := store._difference(name):
                raise _damage(store.folder, wrong)
        return store

    @classmethod
    def _opened(cls, folder: Path) -> TokenStore:
        """As :meth:`open`, without a look at the bytes."""
        if not (folder / MANIFEST).exists():
            raise DamagedStoreError(f"{folder} is no token store: it has no {MANIFEST}")
        try:
            manifest = read_json(folder / MANIFEST)
            sizes = cls.sizes_of(manifest, str(folder))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damage(folder, f"{MANIFEST} cannot be read ({error!r})") from error
        for name, size in sizes.items():
            file = folder / name
            if not file.exists():
                raise _damage(folder, f"{name} is missing")
            if (found := file.stat().st_size) != size:
                raise _damage(folder, f"{name} has {found:,} bytes instead of {size:,}")
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
        sizes = {
            BIN: manifest["tokens"] * dtype.itemsize,
            IDX: HEADER.size + 12 * n + 8 * (n + 1),
            DOCUMENTS: n * RECORD.itemsize,
        }
        if any(manifest["files"][file]["bytes"] != size for file, size in sizes.items()):
            raise ValueError("its figures contradict each other")
        return sizes

    @staticmethod
    def require_header(folder: Path, manifest: dict[str, Any]) -> None:
        """Raise :class:`DamagedStoreError` where the index in ``folder`` is not of this manifest."""
        n, dtype = int(manifest["documents"]), np.dtype(manifest["dtype"])
        with (folder / IDX).open("rb") as stream:
            magic, version, code, sequences, documents = HEADER.unpack(stream.read(HEADER.size))
        if (magic, version, sequences, documents) != (MAGIC, 1, n, n + 1) or CODES.get(code) != dtype.type:
            raise _damage(folder, f"the header of {IDX} does not fit {MANIFEST}")

    @property
    def tokens(self) -> np.ndarray:
        """All ids in a row (N,)."""
        if self._watch is not None:
            self._watch.look()
        return self._tokens

    def release(self) -> None:
        """Let go of the tokens that were read so far: while they are mapped they count as memory of this process."""
        mapped = getattr(self._tokens.base, "_mmap", None)  # none where the store is empty
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    def watch(self, cache: Path, remedy: str = REMEDY) -> None:
        """Have the files that were too large to be compared on opening compared beside the work, once: what was found
        is written down in ``cache``. Raises :class:`DamagedStoreError` with this ``remedy`` where it was found
        before."""
        if self._files(large=True):
            self._watch = Watch(self.folder, cache, self._stamp, self._compare, remedy)
            self._watch.begin()

    def finish_watching(self) -> None:
        """Compare what is not compared yet, at full speed; raises :class:`DamagedStoreError`."""
        if self._watch is not None:
            self._watch.finish()

    def _files(self, *, large: bool) -> list[str]:
        """The names of the large files, or of the others, the smallest first."""
        sizes = {name: int(about["bytes"]) for name, about in self.manifest["files"].items()}
        return sorted((name for name, size in sizes.items() if (size > AT_ONCE) == large), key=lambda name: sizes[name])

    def _difference(self, name: str, rest: Callable[[], None] = lambda: None) -> str | None:
        chunks = self.manifest.get("chunks") if name == BIN else None
        found = difference(self.folder / name, self.manifest["files"][name]["sha256"], chunks, rest)
        return found and f"the bytes of {name} have changed since it was written ({found})"

    def _compare(self, rest: Callable[[], None]) -> str | None:
        """The damage of the large files."""
        for name in self._files(large=True):
            if wrong := self._difference(name, rest):
                return _damage(self.folder, wrong).found
        return None

    def _stamp(self) -> dict[str, list[int]]:
        return stamp_of(self.folder, (MANIFEST, BIN, IDX, DOCUMENTS))

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
        return TokenStore._again, (self.folder, self._watch and (self._watch.cache, self._watch.remedy))

    @classmethod
    def _again(cls, folder: Path, watched: tuple[Path, str] | None) -> TokenStore:
        """For another process of the run: it hears what the one finds that opened the store first."""
        store = cls._opened(folder)
        if watched is not None:
            store._watch = Watch(folder, watched[0], store._stamp, remedy=watched[1])
        return store


def _map(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))


def _damage(folder: Path, what: str) -> DamagedStoreError:
    return DamagedStoreError(f"the token store {folder} is damaged: {what}", REMEDY)
