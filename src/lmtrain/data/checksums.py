"""Whether the files of a token store are still what was written.

A file of up to ``AT_ONCE`` bytes is compared with its checksum whenever its store is opened, which takes some
hundredths of a second. A larger one is compared once, by a thread beside the work (:class:`Watch`), and what came out
is written down::

    <cache>/checked/<hash of the folder>.json     which files, their size and times; the damage, if there is any

so that the next run knows, unless these are others by then. Whoever reads tokens next hears of damage, in all
processes that look into the same cache.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from lmtrain.core.errors import UserError
from lmtrain.core.files import read_record, write_json

AT_ONCE: Final = 32 << 20
_READ = 1 << 20  # bytes read and summed at a time, both without Python's lock: a millisecond
_SHARE = 0.25  # of a core's time, and of the disk's, that a comparison beside the work takes
_LOOK_EVERY = 1.0  # seconds between two looks at what another process has found
_TEXT = 4096  # bytes of what is said of damage, at most


class DamagedStoreError(UserError):
    """A store whose files do not fit together, or are not what was written. ``found`` is what was seen of it."""

    def __init__(self, text: str = "", remedy: str = "", *, flag: str | None = None) -> None:
        # A loader's worker hands an error on with its traceback before it; the last line is the text.
        self.found = text.strip().rpartition("\n")[2].rpartition(f"{type(self).__name__}: ")[2]
        super().__init__(f"{self.found}; {remedy}" if remedy else self.found, flag=flag)


def difference(
    file: Path, sha256: str, chunks: Mapping[str, Any] | None = None, rest: Callable[[], None] = lambda: None
) -> str | None:
    """What of ``file`` is not as it was written, in words; None where nothing is.

    By the CRC-32 of each of its ``chunks`` ({"bytes", "crc32"}), or as a whole. ``rest`` is called after each MB.
    """
    buffer = memoryview(bytearray(_READ))
    size = file.stat().st_size
    step = int(chunks["bytes"]) if chunks else max(1, size)
    sums = list(chunks["crc32"]) if chunks else []
    by_chunk = bool(chunks) and len(sums) == -(-size // step)
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        for start in range(0, size, step):
            crc, end = 0, min(start + step, size)
            while (at := stream.tell()) < end:
                part = buffer[: stream.readinto(buffer[: min(_READ, end - at)]) or 0]
                if not part:
                    return "it ends before its end"
                if by_chunk:
                    crc = zlib.crc32(part, crc)
                else:
                    digest.update(part)
                rest()
            if by_chunk and crc != sums[start // step]:
                return f"between byte {start:,} and byte {end:,}"
    return None if by_chunk or digest.hexdigest() == sha256 else "somewhere in it"


def stamp_of(folder: Path, names: tuple[str, ...]) -> dict[str, list[int]]:
    """Which files lie there (inodes), their sizes and times (ns). The last time changes with every change, also where
    the other was set back."""
    found = {name: (folder / name).stat() for name in names}
    return {name: [about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns] for name, about in found.items()}


class Watch:
    """What is known, and found out meanwhile, of the large files of one store.

    ``compare`` reads them, calling what it is given after each MB, and returns the damage in words or None; without it
    another process does that. ``stamp`` tells the files, sizes and times. ``remedy``: what is to be typed.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        stamp: Callable[[], dict[str, list[int]]],
        compare: Callable[[Callable[[], None]], str | None] | None = None,
        remedy: str = "",
    ) -> None:
        self.folder, self.cache, self.remedy = folder, cache, remedy
        self._stamp, self._compare = stamp, compare
        self._name = hashlib.sha256(str(folder).encode()).hexdigest()[:32]
        self._files = stamp()
        self._known = False
        self._damage: str | None = None
        self._shared = mmap.mmap(-1, _TEXT)  # with workers that are forked: the damage, where no note can be written
        self._next_look = 0.0
        self._enough = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Compare them in a thread, unless that was done; raises :class:`DamagedStoreError` where damage is known."""
        self.look()
        if not self._known and self._compare is not None:
            self._thread = threading.Thread(target=self._beside, name="compare checksums", daemon=True)
            self._thread.start()

    def look(self) -> None:
        """Raise :class:`DamagedStoreError` once damage is known. It costs next to nothing."""
        if not self._known and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_EVERY
            told = read_record(self._note)
            with suppress(OSError):
                if "damage" in told and told.get("files") == self._stamp():
                    self._known, self._damage = True, told["damage"]
            if text := self._shared[:].rstrip(b"\0"):
                self._known, self._damage = True, text.decode(errors="ignore")
        if self._damage is not None:
            raise DamagedStoreError(self._damage, self.remedy)

    def finish(self) -> None:
        """Compare now what is not compared yet, at full speed; raises :class:`DamagedStoreError`."""
        self._enough.set()
        if self._thread is not None:
            self._thread.join()
        if not self._known and self._compare is not None:
            self._settle(self._compare(lambda: None))
        self.look()

    @property
    def _note(self) -> Path:
        return self.cache / "checked" / f"{self._name}.json"

    def _beside(self) -> None:
        """In the thread: of several processes one does it."""
        from filelock import FileLock, Timeout

        lock = None
        with suppress(OSError):  # a cache that cannot be written: each process looks for itself
            (self.cache / "locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.cache / "locks" / f"{self._name}-compare.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                return
        try:
            assert self._compare is not None
            self._settle(self._compare(_Resting(self._enough)))
        except _Enough:
            pass
        except OSError as error:
            if error.errno == errno.EIO:
                self._settle(f"the token store {self.folder} is damaged: it cannot be read ({error.strerror})")
        finally:
            if lock is not None:
                lock.release()

    def _settle(self, damage: str | None) -> None:
        """Write down what was found."""
        with suppress(OSError):
            files = self._stamp()
            if [about[0] for about in files.values()] != [about[0] for about in self._files.values()]:
                return  # replaced meanwhile, while this process keeps the old ones open
            if damage is None and files != self._files:
                return  # written to meanwhile, perhaps where it was read already
            self._known, self._damage = True, damage
            text = (damage or "").encode()[:_TEXT]
            self._shared[: len(text)] = text
            write_json(self._note, {"folder": str(self.folder), "files": files, "damage": damage})


class _Enough(Exception):  # noqa: N818 -- nothing went wrong
    """The comparison is wanted no longer."""


class _Resting:
    """Called after each piece of work, rests so long that working takes ``_SHARE`` of the time."""

    def __init__(self, enough: threading.Event) -> None:
        self._enough = enough
        self._since = time.perf_counter()

    def __call__(self) -> None:
        worked = time.perf_counter() - self._since
        if self._enough.wait(worked * (1 / _SHARE - 1)):
            raise _Enough
        self._since = time.perf_counter()
