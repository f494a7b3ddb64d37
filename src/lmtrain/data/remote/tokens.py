"""``tokens.bin`` on object storage, read by chunks through the cache, as if it were an array."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from lmtrain.data.remote.cache import ChunkCache
from lmtrain.data.remote.failures import UnreachableError
from lmtrain.data.remote.places import Place, place_of
from lmtrain.data.remote.retrying import patiently
from lmtrain.data.store import DamagedStoreError

_FETCHERS = 4  # threads that fetch ahead
_SECOND_LOOK = 2  # fetches of a chunk whose checksum is wrong before it is called damaged


class RemoteTokens:
    """(N,) uint16 or int32: the ids of a store's documents in a row.

    ``tokens[a:b]`` and ``tokens[numbers]`` give arrays, as of a memory-mapped file; nothing else is offered. A chunk
    is fetched when the first of its tokens is asked for, or before (:meth:`expect`), tried again while the storage
    does not answer, and compared with its checksum (``crc32`` of each, where the store has them) when this process
    first uses it.

    Raises :class:`~lmtrain.data.remote.failures.UnreachableError` and
    :class:`~lmtrain.data.store.DamagedStoreError`.
    """

    def __init__(
        self, place: Place, count: int, dtype: np.dtype[Any], cache: ChunkCache, crc32: Sequence[int] = ()
    ) -> None:
        self.place = place
        self.dtype = dtype
        self.shape = (count,)
        self.nbytes = count * dtype.itemsize
        self.cache = cache
        self.chunk_bytes = cache.chunk_bytes
        self._crc32 = crc32
        self._verified: set[int] = set()
        self._process = os.getpid()
        self._fetching: dict[int, Future[None]] = {}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def chunk_tokens(self) -> int:
        """Tokens of a chunk."""
        return self.chunk_bytes // self.dtype.itemsize

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step != 1:
                raise TypeError("tokens are read forwards, one after the other")
            return self._range(start, max(start, stop))
        numbers = np.asarray(which, np.int64)
        taken = np.empty(numbers.shape, self.dtype)
        chunks = numbers // self.chunk_tokens
        for chunk in np.unique(chunks).tolist():
            here = chunks == chunk
            inside = numbers[here]
            low = int(inside.min())
            taken[here] = self._range(low, int(inside.max()) + 1)[inside - low]
        return taken

    def _range(self, start: int, stop: int) -> np.ndarray:
        found, size = [], self.chunk_tokens
        for chunk in range(start // size, -(-stop // size)):
            begin, end = max(start, chunk * size), min(stop, (chunk + 1) * size)
            found.append(self._part(chunk, begin - chunk * size, end - chunk * size))
        if not found:
            return np.empty(0, self.dtype)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _part(self, chunk: int, start: int, stop: int) -> np.ndarray:
        size = self.dtype.itemsize
        while True:
            self._need(chunk)
            data = self.cache.read(chunk, start * size, stop * size)
            if data is not None and len(data) == (stop - start) * size:
                return np.frombuffer(data, self.dtype)
            self._verified.discard(chunk)  # it is gone, for others, or shorter than it was

    # ---- fetching ------------------------------------------------------------------------------------

    def expect(self, chunks: Iterable[int]) -> None:
        """These chunks will be asked for soon: fetch them meanwhile. What fails then fails again when it is needed."""
        self._after_a_fork()
        with self._lock:
            for chunk in chunks:
                if chunk in self._fetching or self.cache.has(chunk):
                    continue
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="read ahead")
                self._fetching[chunk] = self._pool.submit(self._fetch_ahead, chunk)

    def close(self) -> None:
        """Fetch nothing more ahead."""
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool, self._fetching = None, {}

    def _need(self, chunk: int) -> None:
        """See to it that a chunk is in the cache, and is what it should be."""
        self._after_a_fork()
        with self._lock:
            under_way = self._fetching.get(chunk)
        if under_way is not None and not under_way.cancelled():
            under_way.exception()  # waits; what went wrong is tried again here
        if chunk in self._verified and self.cache.has(chunk):
            return
        data = self.cache.read(chunk, 0, self._bytes_of(chunk))
        if data is not None:  # left by an earlier process, or fetched by another
            if self._is_right(chunk, data):
                self._verified.add(chunk)
                return
            self.cache.drop(chunk)
        self._fetch(chunk)

    def _bytes_of(self, chunk: int) -> int:
        return min(self.chunk_bytes, self.nbytes - chunk * self.chunk_bytes)

    def _is_right(self, chunk: int, data: bytes) -> bool:
        """Whether these are the bytes of a chunk, as far as the store says."""
        whole = len(data) == self._bytes_of(chunk)
        return whole and (not self._crc32 or zlib.crc32(data) == self._crc32[chunk])

    def _fetch_ahead(self, chunk: int) -> None:
        try:
            if not self.cache.has(chunk):
                self._fetch(chunk, patience=0)
        except (UnreachableError, DamagedStoreError):
            pass  # who needs it tries longer, and says so
        finally:
            with self._lock:
                self._fetching.pop(chunk, None)

    def _fetch(self, chunk: int, patience: float | None = None) -> None:
        start = chunk * self.chunk_bytes
        size = self._bytes_of(chunk)
        for _ in range(_SECOND_LOOK):
            data = patiently(
                lambda: self.place.files.cat_file(self.place.path, start=start, end=start + size),
                self.place.address, self.place.flag, patience=patience,
            )  # fmt: skip
            if self._is_right(chunk, data):
                self.cache.put(chunk, data)
                self._verified.add(chunk)
                return
        raise DamagedStoreError(
            f"{self.place.name}: bytes {start:,} to {start + size:,} are not what was written there (checksum); it was "
            "damaged or replaced. Upload the store again",
            flag=self.place.flag,
        )

    def _after_a_fork(self) -> None:
        """A loader's worker inherits neither threads nor connections."""
        if self._process != os.getpid():
            self._process, self._lock, self._pool, self._fetching = os.getpid(), threading.Lock(), None, {}
            self.place = place_of(self.place.address, self.place.flag, token=self.place.token)
