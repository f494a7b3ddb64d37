"""Chunks of remote files on the disk, for all processes of a machine: the least recently used go first.

::

    <cache>/remote/lock                     held while room is made and a chunk written
    <cache>/remote/<store>/<number>.chunk   bytes of a file, as they are there

A chunk is written under the lock, into room made for it before, so that all of them together are never more than the
bound, not for a moment. Who reads opens, reads and closes: none is kept open, which would keep its space on the disk
when it is removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from lmtrain.core.errors import UserError
from lmtrain.data.store import explaining_disks

_SUFFIX = ".chunk"
_TOUCHED = 1.0  # seconds between two notes that a chunk is in use
FEWEST = 4  # chunks: one being read, one being fetched, and as many of another text


class ChunkCache:
    """The chunks of one file (``name``) within the ``bound`` (bytes) that all files of ``folder`` share."""

    def __init__(self, folder: Path, name: str, bound: int, chunk_bytes: int) -> None:
        if bound < FEWEST * chunk_bytes:
            raise UserError(
                f"{bound / 1e9:g} GB hold fewer than {FEWEST} chunks of {chunk_bytes / 1e6:,.0f} MB; give at least "
                f"{FEWEST * chunk_bytes / 1e9:.2g}",
                flag="--data_cache_gb",
            )
        self.folder, self.bound, self.chunk_bytes = folder, bound, chunk_bytes
        self.own = folder / name
        self.own.mkdir(parents=True, exist_ok=True)
        self._touched: dict[int, float] = {}

    def _path(self, number: int) -> Path:
        return self.own / f"{number}{_SUFFIX}"

    def has(self, number: int) -> bool:
        return self._path(number).is_file()

    def read(self, number: int, start: int, stop: int) -> bytes | None:
        """Bytes ``start`` to ``stop`` of a chunk; None where it is not there (or no longer)."""
        path = self._path(number)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                data = file.read(stop - start)
        except FileNotFoundError:
            return None
        now = time.monotonic()
        if now - self._touched.get(number, -_TOUCHED) >= _TOUCHED:
            self._touched[number] = now
            with suppress(OSError):
                os.utime(path)
        return data

    def put(self, number: int, data: bytes) -> None:
        """Keep a chunk; others go for it."""
        path = self._path(number)
        with explaining_disks(self.folder), FileLock(self.folder / "lock"):
            if path.is_file():
                return
            self._make_room(len(data))
            scratch = path.with_suffix(".new")
            try:
                scratch.write_bytes(data)
                scratch.replace(path)
            except BaseException:
                scratch.unlink(missing_ok=True)
                raise

    def drop(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)

    def _make_room(self, needed: int) -> None:
        found = sorted(self._all())  # the oldest use first
        total = sum(size for _, size, _ in found) + needed
        for _, size, path in found:
            if total <= self.bound:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _all(self) -> Iterator[tuple[int, int, Path]]:
        for store in self.folder.iterdir():
            if not store.is_dir():
                continue
            for entry in os.scandir(store):
                if entry.name.endswith(".new"):  # of a killed process: who writes holds the lock, and that is us
                    Path(entry.path).unlink(missing_ok=True)
                elif entry.name.endswith(_SUFFIX):
                    with suppress(FileNotFoundError):
                        about = entry.stat()
                        yield about.st_mtime_ns, about.st_size, Path(entry.path)
