"""Long texts in pieces, cut where a tokenizer is least likely to notice.

Byte-level BPE splits text into words before it looks for tokens (the expression of GPT-2 and its heirs),
and no word reaches across a single line break between two visible characters, nor from one word into the
space that begins the next. The tokenization stage proves each cut and joins what it cannot prove.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import AnyStr, BinaryIO

from lmtrain.core.types import Piece

_BEST_FIRST = (
    r"\S\n(?=\S)",  # after a line break:   first line\n|second
    r"\S(?= \S)",  # before a single space: one| two
    r"\s(?=\S)",  # after white space:      a  \t|b
)
# The greedy prefix makes each find its last place in the text, in C and in linear time.
_PLACES = tuple(re.compile(r"(?s:.*)" + place) for place in _BEST_FIRST)
_BYTE_PLACES = tuple(re.compile(rb"(?s:.*)" + place.encode("ascii")) for place in _BEST_FIRST[1:])
_WHITE = frozenset(b" \t\n\r\f\v")
_BREAKS = 4096  # looked at for the best place


def cut_at(text: str) -> int:
    """Where to cut ``text``, which goes on; 0: nowhere (it is a lone CR). Looks in its second half."""
    half = len(text) // 2
    has_break = text.find("\n", half) >= 0  # spares the walk through half a piece that is one line
    for place in _PLACES if has_break else _PLACES[1:]:
        if (found := place.match(text, half)) and found.end() > 0:
            return found.end()
    return len(text) - text.endswith("\r")


def _cut_bytes_at(data: bytes) -> int:
    """The same for UTF-8: never within a character, where ``data`` is whole ones to its last, which may go on."""
    half, at = len(data) // 2, len(data) - 1
    for _ in range(_BREAKS):  # most of those in code are followed by a blank; an expression finds the others slowly
        if (at := data.rfind(b"\n", half + 1, at)) < 0:
            break
        if data[at - 1] not in _WHITE and data[at + 1] not in _WHITE:
            return at + 1
    for place in _BYTE_PLACES:
        if (found := place.match(data, half)) and found.end() > 0:
            return found.end()
    end = len(data) - 1  # the last character begins there or before
    while end > 0 and data[end] & 0xC0 == 0x80:
        end -= 1
    return end - data.endswith(b"\r", 0, end)


def _stretches(chunks: Iterable[AnyStr], size: int, cut: Callable[[AnyStr], int]) -> Iterator[AnyStr]:
    held: AnyStr | None = None
    for chunk in chunks:
        if held and 4 * len(held) >= size and (end := cut(held)):
            yield held[:end]
            held = held[end:]
        held = held + chunk if held else chunk
    if held:
        yield held


def pieces_of(chunks: Iterable[str], size: int, *, first: bool = True) -> Iterator[Piece]:
    """One document that arrives in chunks of ``size`` bytes, as pieces of about that size.

    ``first``: it begins with them.
    """
    for text in _stretches(chunks, size, cut_at):
        yield Piece.of(text, first)
        first = False


def utf8_pieces(stream: BinaryIO, size: int, *, first: bool = True) -> Iterator[Piece]:
    """The same for a stream of UTF-8: text is decoded once, and nowhere encoded again. Raises UnicodeDecodeError."""
    chunks = iter(lambda: stream.read(size), b"")
    for data in _stretches(chunks, size, _cut_bytes_at):
        yield Piece(data.decode("utf-8"), len(data), first, data)
        first = False


def slices(text: str, size: int) -> Iterator[str]:
    """``text`` in chunks of ``size`` characters."""
    return (text[start : start + size] for start in range(0, len(text), size))
