"""Bytes to text, as a stream: byte order marks, other encodings, and where exactly a byte does not fit."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

from lmtrain.core.errors import UserError
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.reading import Reading

_CHUNK = 1 << 20
_MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-32-le": codecs.BOM_UTF32_LE,  # before UTF-16's, which is its beginning
    "utf-32-be": codecs.BOM_UTF32_BE,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}


def byte_order_mark(start: bytes, codec: str) -> bytes:
    """The mark that ``start`` begins with and that the codec would take for text.

    ``utf-16`` and ``utf-32`` without a byte order take their mark themselves.
    """
    mark = _MARKS.get(codec, b"")
    return mark if start.startswith(mark) else b""


def other_encoding(start: bytes, codec: str) -> str | None:
    """The encoding whose byte order mark ``start`` begins with, where ``codec`` is another of Unicode's."""
    named = next((name for name, mark in _MARKS.items() if start.startswith(mark)), codec)
    if named.startswith(codec) or not codec.startswith("utf-"):
        return None
    return named.removesuffix("-le").removesuffix("-be")


def utf8_length(text: str) -> int:
    """The bytes that ``text`` takes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))


@cache
def is_ascii_superset(codec: str) -> bool:
    """Whether text in this encoding can be told from binary data by its zero bytes."""
    return "A\n".encode(codec) == b"A\n"


def decode_chunks(stream: BinaryIO, reading: Reading, size: int, *, beginning: bool = True) -> Iterator[str]:
    """The text of a stream, about ``size`` bytes at a time. Raises UnicodeDecodeError.

    ``beginning``: it is the beginning of a file, where a byte order mark is no text.
    """
    decoder = codecs.getincrementaldecoder(reading.codec)(reading.encoding_errors)
    chunk = stream.read(max(size, 4))
    if beginning:
        chunk = chunk[len(byte_order_mark(chunk, reading.codec)) :]
    while True:
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError:
            raise
        except UnicodeError as error:  # of UTF-16 without a byte order mark
            raise UnicodeDecodeError(reading.codec, chunk, 0, 1, str(error)) from error
        if text:
            yield text
        if not chunk:
            return
        chunk = stream.read(size)


class Utf8Stream(io.RawIOBase):
    """A stream in any encoding, read as UTF-8 without a byte order mark."""

    def __init__(self, stream: BinaryIO, reading: Reading) -> None:
        self._chunks = decode_chunks(stream, reading, _CHUNK)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            text = next(self._chunks, None)
            if text is None:
                return 0
            self._rest = memoryview(text.encode("utf-8", "replace"))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def as_utf8(stream: BinaryIO, reading: Reading) -> BinaryIO:
    """The stream past its byte order mark if it is UTF-8 (not checked), else one that re-encodes it."""
    if reading.codec != "utf-8":
        return io.BufferedReader(Utf8Stream(stream, reading), _CHUNK)
    peek = getattr(stream, "peek")(3)  # every stream of File.open has it  # noqa: B009
    stream.read(len(byte_order_mark(peek, "utf-8")))
    return stream


def misfit(file: File, reading: Reading) -> UserError:
    """Say where the first byte is that the encoding does not know, by reading the file once more."""
    decoder = codecs.getincrementaldecoder(reading.codec)("strict")
    offset, lines = 0, 1
    with file.open() as stream:
        start = stream.read(4)
        if other := other_encoding(start, reading.codec):
            how = f"read it with --encoding {other}" if file.flag else "write it in UTF-8 first"
            said = f"it begins with the byte order mark of {other.upper()}"
            return file.error(f" is not {reading.codec.upper()}: {said}; {how}")
        mark = byte_order_mark(start, reading.codec)
        chunk, offset = start[len(mark) :], len(mark)
        while True:
            held = len(decoder.getstate()[0])  # bytes of a character that the chunk before began
            try:
                lines += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                good = error.object[: error.start].decode(reading.codec, "replace")
                line = lines + good.count("\n")
                at = offset - held + error.start
                what = f"byte 0x{error.object[error.start]:02x} at offset {at} ({error.reason})"
                other = "latin-1" if reading.codec == "utf-8" else "utf-8"
                how = (
                    f"if the text is in another encoding name it (--encoding {other}), "
                    "or put U+FFFD in place of such bytes: --encoding_errors replace"
                )
                if not file.flag:  # of a command without these options
                    how = "write the text in UTF-8 first, such as with: iconv -f latin1 -t utf-8 FILE"
                return file.error(f":{line}: not {reading.codec.upper()}: {what}; {how}")
            except UnicodeError as error:
                order = f"; name the order of the bytes: --encoding {reading.codec}-le or {reading.codec}-be"
                how = order if reading.codec in ("utf-16", "utf-32") else ""
                return file.error(f" cannot be read with --encoding {reading.encoding}: {error}{how}")
            if not chunk:
                return file.error(f" could not be decoded as {reading.encoding}")
            offset += len(chunk)
            chunk = stream.read(_CHUNK)
