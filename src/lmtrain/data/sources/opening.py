"""Files as streams of plain bytes, whatever they were compressed with.

What a file is compressed with is told by its first bytes, not by its name.
"""

# Corpora of many small files: a pathlib.Path costs more than to open and read one, so paths are strings here.
# ruff: noqa: PTH116, PTH118, PTH122, PTH123

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, cast

from lmtrain.core.errors import UserError
from lmtrain.data.sources.hashing import PART, hash_of_file

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x50\x2a\x4d\x18", "zstd"),  # a frame to be skipped: pzstd begins with one
)
_SUFFIX = {".gz": "gzip", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd"}
_BUFFER = 1 << 18
HEAD = 8192  # bytes looked at to tell what a file is


class TemporaryFolder:
    """A folder that is deleted with its last owner, or at exit (tempfile's own warns when that happens)."""

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp(prefix="lmtrain-")
        self.delete = weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)


@dataclass(slots=True)
class File:
    """A file to read: ``path`` is where it lies, ``name`` what the user calls it, ``flag`` who named it."""

    path: str
    name: str
    flag: str
    compression: str | None = None
    owned: TemporaryFolder | None = None  # holds standard input until the source is gone
    _hash: str = field(default="", repr=False)
    on_read: Callable[[int], None] | None = field(default=None, repr=False, compare=False)
    """Told the bytes of each read from the disk, packed as they lie there; it may raise to end the reading."""

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """For another process: it reads the file, and a temporary one stays this process's to delete."""
        slots = {each.name: getattr(self, each.name) for each in fields(self)} | {"owned": None, "on_read": None}
        return None, slots

    def content_hash(self, pool: ThreadPoolExecutor | None = None) -> str:
        """See :mod:`hashing`. ``pool``: its threads hash the parts of a large file; none of them may ask for that."""
        if not self._hash:
            with self.explained():
                self._hash = hash_of_file(Path(self.path), pool)
        return self._hash

    @property
    def size(self) -> int:
        """Bytes as the file lies on disk."""
        return os.stat(self.path).st_size

    @property
    def is_hashed_in_parts(self) -> bool:
        """Whether several threads can find its content hash together."""
        with self.explained():
            return self.size > PART

    @property
    def in_ranges(self) -> bool:
        """Whether it can be entered in the middle."""
        return True

    def is_within(self, limit: int) -> bool:
        """Whether it is known to have at most ``limit`` bytes as it lies on disk."""
        return self.size <= limit

    @property
    def changed(self) -> int:
        """When it was written last (ns): another number, another content. 0 for a temporary copy (of standard input),
        which is new every time."""
        return 0 if self.owned else os.stat(self.path).st_mtime_ns

    def stamp(self) -> tuple[int, int] | None:
        """Its bytes and the time of its last change (ns), which is another one once it was written to. None: gone, or
        on a storage that is not asked for such a thing."""
        try:
            about = os.stat(self.path)
        except OSError:
            return None
        return about.st_size, about.st_mtime_ns

    @property
    def suffix(self) -> str:
        """The suffix that tells the format, in lower case: ``.jsonl`` for ``a/b.JSONL.gz``."""
        stem, suffix = os.path.splitext(self.name.lower())
        return os.path.splitext(stem)[1] if suffix in _SUFFIX else suffix

    def error(self, text: str) -> UserError:
        return UserError(f"{self.name}{text}", flag=self.flag)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the system and the decompressors raise into one line for the user."""
        try:
            yield
        except PermissionError as error:
            raise self.error(f" may not be read: permission denied; try: chmod u+r '{self.name}'") from error
        except FileNotFoundError as error:
            raise self.error(": no such file") from error
        except EOFError as error:
            raise self._broken(f"the {self.compression} data stop before their end") from error
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
            raise self._broken(f"the {self.compression} data are damaged ({error})") from error
        except OSError as error:
            if self.compression and error.errno is None:  # pyarrow's own, not the system's
                cut = "Truncated" in str(error)
                said = "stop before their end" if cut else f"are damaged ({error})"
                raise self._broken(f"the {self.compression} data {said}") from error
            raise self.error(f" could not be read: {error.strerror or error}") from error

    def _broken(self, what: str) -> UserError:
        tool = {"gzip": "gzip -t", "xz": "xz -t", "zstd": "zstd -t"}[self.compression or "gzip"]
        return self.error(f" is incomplete or damaged: {what}; fetch it again (check with: {tool} '{self.name}')")

    @contextmanager
    def open(self, span: tuple[int, int] | None = None) -> Iterator[BinaryIO]:
        """The file's plain bytes, of one that is not compressed also those of a ``span``. ``read(n)`` gives n bytes but
        at the end."""
        if span is not None:
            with self.open() as whole:
                whole.seek(span[0])
                with io.BufferedReader(_Bounded(whole, span[1] - span[0]), _BUFFER) as bounded:
                    yield cast(BinaryIO, bounded)
            return
        with self.explained():
            if self.compression == "zstd" and self.on_read is None:
                import pyarrow as pa

                with pa.OSFile(self.path) as raw, _unzstd(raw) as stream:  # no Python between the disk and Arrow
                    yield stream
                return
            with open(self.path, "rb", buffering=_BUFFER) as raw, self.unpacking(raw) as stream:
                yield stream

    @contextmanager
    def unpacking(self, raw: Any) -> Iterator[BinaryIO]:
        """The plain bytes of the file, whose bytes as they lie are those of ``raw``."""
        if self.on_read is not None:
            raw = io.BufferedReader(_Told(raw, self.on_read), _BUFFER)
        if self.compression is None:
            yield cast(BinaryIO, raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw, _BUFFER))
        elif self.compression == "gzip":
            with gzip.open(raw, "rb") as unzipped:
                yield cast(BinaryIO, unzipped)
        elif self.compression == "xz":
            with lzma.open(raw, "rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            import pyarrow as pa

            with pa.PythonFile(raw, mode="r") as whole, _unzstd(whole) as stream:
                yield stream

    def seekable(self) -> str | BinaryIO:
        """Where a library that reads here and there finds the bytes as they lie: a path, or an open file."""
        return self.path

    def read_all(self) -> bytes:
        """All plain bytes of a small file."""
        if self.compression is None:
            with self.explained(), open(self.path, "rb", buffering=0) as plain:
                data = plain.readall()
            if self.on_read:
                self.on_read(len(data))
            return data
        with self.open() as stream:
            return stream.read()

    def head(self, size: int = HEAD) -> bytes:
        """The first plain bytes."""
        if self.compression is None:
            with self.explained():
                descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # a fifth of a file object
                try:
                    return os.read(descriptor, size)
                finally:
                    os.close(descriptor)
        with self.open() as stream:
            return stream.read(size)


class _Bounded(io.RawIOBase):
    """The next ``left`` bytes of a stream, which stays open."""

    def __init__(self, stream: BinaryIO, left: int) -> None:
        self._stream, self._left = stream, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


class _Told(io.RawIOBase):
    """A stream whose reads are told to ``on_read``, and that stays open."""

    def __init__(self, stream: BinaryIO, on_read: Callable[[int], None]) -> None:
        self._stream, self._on_read = stream, on_read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = int(self._stream.readinto(buffer) or 0)  # type: ignore[attr-defined]
        self._on_read(count)
        return count


@contextmanager
def _unzstd(raw: Any) -> Iterator[BinaryIO]:
    import pyarrow as pa

    with pa.CompressedInputStream(raw, "zstd") as stream, io.BufferedReader(stream, _BUFFER) as buffered:
        yield cast(BinaryIO, buffered)


def open_file(path: str, name: str, flag: str) -> tuple[File, bytes]:
    """A file and its first plain bytes (all of them if it has fewer than :data:`HEAD`)."""
    return begun(File(path, name, flag))


def begun(file: File) -> tuple[File, bytes]:
    """``file`` with its compression told by its first bytes, and its first plain bytes."""
    head = file.head()
    file.compression = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if file.compression:
        return file, file.head()
    promised = _SUFFIX.get(os.path.splitext(file.path)[1].lower())
    if promised and head:
        raise file.error(f" is named like a {promised} file but does not begin as one; rename it or fetch it again")
    return file, head


def spool(stream: BinaryIO, name: str, flag: str) -> tuple[File, bytes]:
    """Copy a stream that can be read only once (standard input, a pipe) to a temporary file.

    The file is deleted when the last source that reads it is gone, or at exit.
    """
    folder = TemporaryFolder()
    path = os.path.join(folder.name, "input")
    try:
        with open(path, "wb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
    except OSError as error:
        folder.delete()
        raise UserError(
            f"{name} could not be copied to {tempfile.gettempdir()}: {error.strerror or error}; "
            "set TMPDIR to a folder with enough room",
            flag=flag,
        ) from error
    file, head = open_file(path, name, flag)
    file.owned = folder
    return file, head


def unpacked(file: File) -> File:
    """The same file without compression, for formats that are not read from front to back.

    One that cannot be entered in the middle is copied, too.
    """
    if file.compression is None and file.in_ranges:
        return file
    with file.open() as stream:
        plain, _ = spool(stream, file.name, file.flag)
    plain._hash = file.content_hash()
    return plain
