"""Where prepared stores are kept, under a key of content: shown, locked, freed.

::

    <cache>/stores/<key>/          one store each (see store.py)
    <cache>/stores/.<key>.….tmp/   a preparation under way, or what a killed one left
    <cache>/stores/.<key>.shards/  parts of a store made one by one, until they are merged (see preparing/shards.py)
    <cache>/locks/<key>.lock       held while its store is made
    <cache>/elsewhere/<key>        where a store lies that was made outside the cache
    <cache>/checked/<path>.json    of large stores: whether their bytes are what was written (see checksums.py)
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError
from lmtrain.core.files import read_record, write_text
from lmtrain.data.store import MANIFEST, explaining_disks

_KEY_LENGTH = 32  # hex digits of the key used as a name: 128 bits
_ABANDONED = 3600.0  # seconds without a write


def cache_folder(given: str | None = None) -> Path:
    """``given``, else ``$LMTRAIN_CACHE``, else ``$XDG_CACHE_HOME/lmtrain``, else ``~/.cache/lmtrain``.

    Raises :class:`UserError` for a user without a home, as containers have.
    """
    if given:
        return user_path(given)
    if own := os.environ.get("LMTRAIN_CACHE"):
        return user_path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(shared) if shared else Path.home() / ".cache") / "lmtrain"
    except RuntimeError as error:
        raise UserError(
            "this user has no home folder to keep prepared text in (HOME is not set); name a folder for it",
            flag="--data_cache_dir",
        ) from error


def store_folder(cache: Path, key: str) -> Path:
    return cache / "stores" / key[:_KEY_LENGTH]


def shards_folder(cache: Path, key: str) -> Path:
    return cache / "stores" / f".{key[:_KEY_LENGTH]}.shards"


def remember_elsewhere(cache: Path, key: str, folder: Path) -> None:
    """Write down that the store of ``key`` lies in ``folder``, so that later runs find it."""
    note = cache / "elsewhere" / key[:_KEY_LENGTH]
    with explaining_disks(cache):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, str(folder.absolute()))


def elsewhere(cache: Path, key: str) -> Path | None:
    """The folder that :func:`remember_elsewhere` noted, where there is a store in it that this user may read."""
    with suppress(OSError, ValueError):
        folder = Path((cache / "elsewhere" / key[:_KEY_LENGTH]).read_text(encoding="utf-8"))
        return folder if os.access(folder / MANIFEST, os.R_OK) else None
    return None


def clear_abandoned(folder: Path) -> None:
    """Remove what killed preparations of the store at ``folder`` left beside it, for who has its lock: where nobody
    wrote for an hour, as on some shared file systems a lock keeps out no other machine."""
    for left in folder.parent.glob(f".{escape(folder.name)}.{'[0-9a-f]' * 8}.*"):
        with suppress(OSError):
            if time.time() - max(path.stat().st_mtime for path in (left, *left.rglob("*"))) > _ABANDONED:
                shutil.rmtree(left)


@contextmanager
def locked(
    cache: Path, key: str, waiting: str = "", *, part: int | None = None, patience: float = 0.0
) -> Iterator[None]:
    """Hold the lock of a key, or of a ``part`` of what it names, so that two processes do the work once.

    ``waiting`` is said when it is not free within ``patience`` seconds. The operating system frees it when its holder
    dies, so a dead one's lock is no obstacle.
    """
    from multiprocessing.process import current_process

    from filelock import FileLock, Timeout

    if getattr(current_process(), "_inheriting", False):  # a worker that runs its parent's program, which has the lock
        raise UserError(
            "a program that has text prepared by several processes keeps what it runs under if __name__ == '__main__'",
            flag="--preprocessing_num_workers",
        )
    path = cache / "locks" / f"{key[:_KEY_LENGTH]}{'' if part is None else f'-{part}'}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            if waiting:
                from lmtrain.core.console import say

                say("store", waiting)
            lock.acquire()
    except OSError as error:
        raise UserError(
            f"{cache} cannot be written ({error.strerror or error}); name another folder",
            flag="--data_cache_dir",
        ) from error
    try:
        yield
    finally:
        lock.release()


def parts_under_way(cache: Path, key: str) -> list[int]:
    """The parts of what ``key`` names that processes have :func:`locked`."""
    from filelock import FileLock, Timeout

    held = []
    for path in (cache / "locks").glob(f"{key[:_KEY_LENGTH]}-*.lock"):
        try:
            with FileLock(path, timeout=0):  # one after the other: there may be more than files that can be open
                continue
        except Timeout:
            held.append(int(path.stem.rpartition("-")[2]))
    return sorted(held)


@dataclass(frozen=True)
class StoredInfo:
    """One store in the cache; ``manifest`` is None for what a killed preparation left."""

    folder: Path
    bytes: int
    manifest: dict[str, Any] | None

    def line(self) -> str:
        if self.manifest is None:
            return f"{self.folder.name}  {self.bytes / 1e6:,.1f} MB  unfinished"
        sources = [source["name"] for source in self.manifest["sources"]]
        more = f" and {len(sources) - 1:,} more" if len(sources) > 1 else ""
        return (
            f"{self.folder.name}  {self.bytes / 1e6:,.1f} MB  {self.manifest['tokens']:,} tokens  "
            f"{self.manifest['created']}  {sources[0]}{more}"
        )


def list_stores(cache: Path) -> list[StoredInfo]:
    """All stores and unfinished ones, the largest first."""
    found = []
    stores = cache / "stores"
    for folder in sorted(stores.iterdir()) if stores.is_dir() else []:
        if folder.is_dir():
            manifest = {} if folder.name.startswith(".") else read_record(folder / MANIFEST)
            found.append(StoredInfo(folder, _bytes_in(folder), manifest if "sources" in manifest else None))
    return sorted(found, key=lambda info: -info.bytes)


def _bytes_in(folder: Path) -> int:
    """Of the files below it; those of a store that is being made come and go meanwhile."""
    size = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += (Path(where) / name).stat().st_size
    return size


def clean(cache: Path) -> tuple[list[StoredInfo], list[StoredInfo]]:
    """Delete every store but those being made now. Returns what was freed and what was in use.

    On POSIX a run that has a store mapped keeps reading it: the disk space is freed when the run ends.
    """
    from filelock import FileLock, Timeout

    freed: list[StoredInfo] = []
    busy: list[StoredInfo] = []
    for info in list_stores(cache):
        key = info.folder.name.removeprefix(".").split(".")[0]
        locks = cache / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(locks / f"{key}.lock", timeout=0):  # without it nobody begins a part
                is_busy = bool(parts_under_way(cache, key))
                if not is_busy:
                    shutil.rmtree(info.folder)
        except (Timeout, OSError):
            is_busy = True
        (busy if is_busy else freed).append(info)
    for note in (cache / "checked").glob("*.json"):
        if not Path(read_record(note).get("folder", "")).is_dir():
            note.unlink(missing_ok=True)
    return freed, busy
