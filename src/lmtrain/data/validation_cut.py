"""One text, two splits: where a corpus of few documents is cut so that its first per cent is validation.

Rows are counted as the scripts count them, and 5 % of one book is no row. Then the text itself is cut, at the
first line break after so many per cent of its bytes, and stored as two documents::

    |<----------- book.txt, 1,000,000 bytes ----------->|
    |<- 50,031 ->|<------------- 949,969 -------------->|
     validation   training
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lmtrain.core.types import Piece, Source, Tally
from lmtrain.data.sources.decoding import byte_order_mark
from lmtrain.data.sources.text import TextSource
from lmtrain.data.splits import first_count


@dataclass(frozen=True, slots=True)
class Cut:
    """Where to cut: in which source, after how many of that source's UTF-8 bytes; what becomes validation."""

    percentage: float
    source: int
    offset: int
    validation_documents: int
    bytes: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def find_cut(sources: Sequence[Source], percentage: float) -> Cut | None:
    """None when the first ``percentage`` per cent of the documents are some and not all.

    Reads the sources until that is known: a few documents, or all of a corpus of few documents.
    """
    if not 0 < percentage < 100:
        return None
    count = 0
    sizes: list[tuple[int, int]] = []  # of each document: its source's number, its UTF-8 bytes
    for number, source in enumerate(sources):
        for n_bytes, first in _lengths(source):
            if first:
                count += 1
                sizes.append((number, 0))
                if 0 < first_count(percentage, count) < count:
                    return None
            sizes[-1] = (number, sizes[-1][1] + n_bytes)
    target = int(sum(size for _, size in sizes) * percentage / 100.0)
    before = 0
    for index, (number, size) in enumerate(sizes):
        if before + size > target:
            in_source = [s for n, s in sizes[:index] if n == number]  # documents of that source before this one
            place = _place(_document(sources[number], len(in_source)), size, target - before)
            if not 0 < place < size:
                return None  # a single character
            return Cut(percentage, number, sum(in_source) + place, index + 1, before + place)
        before += size
    return None  # no text at all


def _lengths(source: Source) -> Iterator[tuple[int, bool]]:
    """UTF-8 bytes of each piece of its documents, and whether it begins one."""
    if isinstance(source, TextSource) and source.is_bytes and source.file.size:  # known without reading it
        with source.file.explained():
            mark = len(byte_order_mark(source.file.head(4), source.reading.codec))
            yield source.file.size - mark, True
        return
    for piece in source.pieces(Tally()):
        yield piece.n_bytes, piece.first


def _document(source: Source, wanted: int) -> Iterator[bytes]:
    """The pieces of a source's document number ``wanted``, as UTF-8."""
    number = -1
    for piece in source.pieces(Tally()):
        number += piece.first
        if number == wanted:
            yield piece.text.encode("utf-8")
        elif number > wanted:
            return


def _place(pieces: Iterable[bytes], size: int, target: int) -> int:
    """Where to cut a document of ``size`` bytes: at the line break nearest to ``target``.

    Where the nearest one would give validation more than half of the document (and more than one and a half
    times what was asked for): behind the next white space, and without any at the next character.
    """
    at = 0
    break_before = break_after = space = character = 0
    for data in pieces:
        inside = target - at  # where the target lies in this piece, or before or after it
        if inside > 0:
            found = data.rfind(b"\n", 0, inside)
            break_before = at + found + 1 if found >= 0 else break_before
        if inside < len(data):
            start = max(0, inside)
            found = data.find(b"\n", start)
            if found >= 0 and at + found + 1 < size:
                break_after = at + found + 1
            found = data.find(b" ", start)
            space = space or (at + found + 1 if found >= 0 else 0)
            character = character or at + _character(data, start, is_first=at == 0)
            if break_after:
                break
        at += len(data)
    breaks = sorted((b for b in (break_before, break_after) if b), key=lambda place: abs(place - target))
    for place in (*breaks, space):
        if 0 < place < size and place <= max(1.5 * target, size / 2):
            return place
    return character


def _character(data: bytes, at: int, *, is_first: bool) -> int:
    """Where the UTF-8 character around ``at`` begins; the second one rather than the text's first."""
    while at and data[at] & 0xC0 == 0x80:
        at -= 1
    if at == 0 and is_first:
        at = 1
        while at < len(data) and data[at] & 0xC0 == 0x80:
            at += 1
    return at


def cut_pieces(pieces: Iterable[Piece], cut: Cut) -> Iterator[Piece]:
    """The same pieces, with a document beginning at ``cut.offset``."""
    at = 0
    for piece in pieces:
        inside = cut.offset - at
        at += piece.n_bytes
        if inside == 0 and not piece.first:
            yield Piece(piece.text, piece.n_bytes)
        elif 0 < inside < piece.n_bytes:
            data = piece.text.encode("utf-8")
            yield Piece(data[:inside].decode("utf-8"), inside, piece.first)
            yield Piece(data[inside:].decode("utf-8"), piece.n_bytes - inside)
        else:
            yield piece
