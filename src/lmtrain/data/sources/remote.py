"""Files on object storage and on the web as sources: read as streams, told apart by what the storage says of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from lmtrain.core.addresses import HIDDEN, shown
from lmtrain.core.console import counted
from lmtrain.core.errors import UserError
from lmtrain.core.files import sha256_json
from lmtrain.data.remote.failures import explain, scheme_of
from lmtrain.data.remote.places import Place, in_time, mark_of, place_of
from lmtrain.data.remote.retrying import patiently
from lmtrain.data.sources.opening import HEAD, File
from lmtrain.data.sources.text import INTO_FOLDERS, PassedOver

_READ_AHEAD = 8 << 20  # bytes asked for at once: fewer requests, each of which takes about as long as 1 MB
_PATTERN = "*?["


@dataclass(slots=True)
class RemoteFile(File):
    """A file at an address. ``name`` is the address without what may not be written down, ``path`` the same without
    any sign that something is left out.

    It pickles without its connection. ``about`` is what the storage told of it when it was found.
    """

    address: str = field(default="", repr=False)
    token: str | None = field(default=None, repr=False)
    about: dict[str, Any] = field(default_factory=dict, repr=False)
    _in_ranges: bool | None = field(default=None, repr=False)

    @property
    def place(self) -> Place:
        return place_of(self.address, self.flag, token=self.token)

    def content_hash(self, pool: ThreadPoolExecutor | None = None) -> str:
        """By the storage's own checksum, ETag or version where it has one, with the address: nothing is read then.

        Else the SHA-256 of its bytes, which are read once for it.
        """
        if not self._hash:
            mark = mark_of(self.about)
            if mark:
                known = {"address": self.path, "mark": mark, "bytes": self.about.get("size")}
                self._hash = sha256_json(known)
            else:
                self._hash = self._sha256()
        return self._hash

    def _sha256(self) -> str:
        digest = hashlib.sha256()
        with self.explained(), self._raw() as stream:
            while part := stream.read(_READ_AHEAD):
                digest.update(part)
        return digest.hexdigest()

    @property
    def is_hashed_in_parts(self) -> bool:
        return False

    @property
    def changed(self) -> int:
        return int(self.content_hash()[:15], 16)

    def stamp(self) -> None:
        """None: to ask a storage for each of many files takes long."""

    @property
    def suffix(self) -> str:
        return File(self.path, self.path, self.flag).suffix

    @property
    def size(self) -> int:
        return int(self.about.get("size") or 0)

    def is_within(self, limit: int) -> bool:
        size = self.about.get("size")
        return size is not None and int(size) <= limit

    @property
    def in_ranges(self) -> bool:
        """Asked of a web server once, by its last byte: some send a file whole whatever part of it is wanted."""
        if self._in_ranges is None:
            self._in_ranges = scheme_of(self.address) != "https" or self._gives_ranges()
        return self._in_ranges

    def _gives_ranges(self) -> bool:
        size, place = self.size, self.place
        if not size or self.about.get("partial") is False:
            return False

        def last() -> bool:
            with place.files.open(place.path, "rb", block_size=1, cache_type="none", size=size) as stream:
                stream.seek(size - 1)
                try:
                    return len(stream.read(1)) == 1
                except ValueError:  # fsspec's, where more came than was asked for
                    return False

        with self.explained():
            return in_time(last, self.address, self.flag)

    @contextmanager
    def explained(self) -> Iterator[None]:
        try:
            with File.explained(self):
                yield
        except UserError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError | EOFError) or self._is_packing(cause):
                raise
            raise explain(cause, self.address, self.flag) from None
        except (ValueError, AssertionError, MemoryError):
            raise  # the reader's own
        except Exception as error:
            if type(error).__module__.split(".")[0] in ("lmtrain", "pyarrow"):
                raise
            raise explain(error, self.address, self.flag) from None

    def _is_packing(self, error: BaseException) -> bool:
        """Whether it is of the packed bytes, and not of the way to them."""
        if isinstance(error, EOFError | gzip.BadGzipFile | lzma.LZMAError):
            return True
        return type(error) is OSError and error.errno is None and bool(self.compression == "zstd")

    def _raw(self) -> Any:
        """The bytes as they lie, read from front to back or, where they come :attr:`in_ranges`, here and there."""
        place = self.place
        if not self.in_ranges:
            return io.BufferedReader(place.files.open(place.path, "rb", block_size=0), 1 << 18)
        return place.files.open(place.path, "rb", block_size=_READ_AHEAD, cache_type="readahead")

    def seekable(self) -> str | BinaryIO:
        with self.explained():
            return cast(BinaryIO, self._raw())

    @contextmanager
    def open(self, span: tuple[int, int] | None = None) -> Iterator[BinaryIO]:
        if span is not None:
            with File.open(self, span) as bounded:
                yield bounded
            return
        with self.explained(), self._raw() as raw, self.unpacking(raw) as stream:
            yield stream

    def read_all(self) -> bytes:
        if self.compression is None:
            data = cast(bytes, patiently(lambda: self.place.files.cat_file(self.place.path), self.address, self.flag))
            if self.on_read:
                self.on_read(len(data))
            return data
        with self.open() as stream:
            return stream.read()

    def head(self, size: int = HEAD) -> bytes:
        if self.compression is None:
            if self.about.get("size") == 0:
                return b""
            place = self.place
            with self.explained():
                if not self.in_ranges:
                    return in_time(lambda: self._beginning(size), self.address, self.flag)
                return in_time(lambda: cast(bytes, _first(place, size)), self.address, self.flag)
        with self.open() as stream:
            return stream.read(size)

    def _beginning(self, size: int) -> bytes:
        with self._raw() as stream:
            return cast(bytes, stream.read(size))


def _first(place: Place, size: int) -> Any:
    try:
        return place.files.cat_file(place.path, start=0, end=size)
    except (ValueError, NotImplementedError):  # a storage without ranges
        with place.files.open(place.path, "rb") as stream:
            return stream.read(size)


def find_files(address: str, flag: str, token: str | None, over: PassedOver) -> tuple[list[RemoteFile], bool]:
    """The files that an address names, sorted by path, and whether it named one by itself and not a folder or pattern.

    Folders that a pattern matches are left out, which is noted in ``over``. Raises :class:`UserError` where there is no
    file, or the storage cannot be asked.
    """
    place = place_of(address, flag, token=token)
    web = scheme_of(address) == "https"
    signs = "*" if web else _PATTERN  # ? begins a web address's query
    if any(sign in place.path for sign in signs):
        found = patiently(lambda: place.files.glob(place.path, detail=True), address, flag, patience=0)
        folders = sum(about.get("type") == "directory" and not _is_hidden(path, place.path)
                      for path, about in found.items())  # fmt: skip
        matched = f"{counted(folders, 'folder')} and no file; {INTO_FOLDERS}" if folders else "no file"
        files = _files(place, found, token, f"the pattern {place.name!r} matches {matched}")
        over.leave_out(folders, place.name)
        return files, False
    if web and place.path.partition("?")[0].endswith("/"):
        raise UserError(
            f"{place.name}: a web server has no folders; name its files, or a pattern such as …/*.txt",
            flag=flag,
        )
    about = place.about()
    if about.get("type") != "directory":
        return [_file(place, about, token)], True
    found = patiently(lambda: place.files.find(place.path, detail=True), address, flag, patience=0)
    return _files(place, found, token, f"{place.name} is a folder without a file"), False


def _files(place: Place, found: dict[str, Any], token: str | None, nothing: str) -> list[RemoteFile]:
    files = [
        _file(place.beside(path), _told(place.beside(path), about), token)
        for path, about in sorted(found.items(), key=lambda item: item[0].split("/"))
        if about.get("type") == "file" and not _is_hidden(path, place.path) and not path.endswith("/")
    ]
    if not files:
        raise UserError(nothing, flag=place.flag)
    return files


def _told(place: Place, about: dict[str, Any]) -> dict[str, Any]:
    """What the listing tells; where it knows no sizes (a web server's page of links), what the storage does."""
    unknown = about.get("size") is None and scheme_of(place.address) == "https"
    return place.about() if unknown else about


def _is_hidden(path: str, below: str) -> bool:
    typed = dict(enumerate(below.split("/")))
    return any(part.startswith(".") and typed.get(at) != part for at, part in enumerate(path.split("/")))


def _file(place: Place, about: dict[str, Any], token: str | None) -> RemoteFile:
    name = shown(place.address)
    path = name.removesuffix("?" + HIDDEN).removesuffix("#" + HIDDEN)
    return RemoteFile(path, name, place.flag or "", address=place.address, token=token, about=about)
