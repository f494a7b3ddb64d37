"""Long documents in pieces: each cut is proven not to change the tokens, or the pieces are joined again.

A tokenizer that splits text into words first gives the same ids for ``left + right`` and for ``left`` and
``right`` apart when no word crosses the cut. One that looks at the whole text, or that puts a space before
every text (Llama's), does not::

    GPT-2    "…return x\\n" | "def f():…"    ids(left + right) == ids(left) + ids(right)   cut kept
    Llama    "…return x\\n" | "def f():…"    right begins with "▁" on its own              pieces joined

Both sides of the comparison are short windows around the cut, encoded by the plain engine.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from lmtrain.core.types import Piece
from lmtrain.data.sources.text import TextSource
from lmtrain.data.tokenization import Encoder

_WINDOW = 251  # characters on either side of a cut; a prime, as 256 would show no cut through a run of spaces
_LONGEST = 4  # bytes of a character in UTF-8
_TRIED = 4  # places of each kind
_PLACES = (  # as cutting.cut_at has them: after a line break, before a space, each between two visible characters
    re.compile(rb"(?<=\S\n)(?=\S)"),
    re.compile(rb"(?<=\S)(?= \S)"),
)


class Seams:
    """Proves cuts with the plain engine and counts those that did not hold."""

    def __init__(self, plain: Encoder) -> None:
        self._plain = plain
        self.joined = 0

    def holds(self, left: str, right: str) -> bool:
        """Whether encoding the two apart gives the ids of encoding them together."""
        left, right = left[-_WINDOW:], right[:_WINDOW]
        ids, offsets = self._plain.encode([left + right, left, right])
        return np.array_equal(ids[: offsets[1]], ids[offsets[1] :])

    def boundary(self, source: TextSource, near: int, window: int) -> int | None:
        """The first byte from ``near`` on, within ``window`` bytes, where a document of plain UTF-8 may be read in two.

        None where there is no such place, or none of the first few holds.
        """
        before = near - min(near, _LONGEST * _WINDOW + 2)
        size = source.file.size
        with source.file.open((before, min(size, near + window + _LONGEST * _WINDOW))) as stream:
            data = stream.read(near + window + _LONGEST * _WINDOW - before)
        for place in _PLACES:
            for found in islice(place.finditer(data, near - before, near - before + window), _TRIED):
                at = found.start()
                try:
                    left, right = _around(data, at, source.reading.encoding_errors)
                except UnicodeDecodeError:
                    return None  # whoever reads it says where
                if self.holds(left, right):
                    return before + at
        return None

    def proven(self, pieces: Iterable[Piece]) -> Iterator[tuple[str, bool]]:
        """``(text, first)`` of each piece; pieces whose cut does not hold come as one text."""
        held: list[str] = []  # a list, so that joining many pieces costs one copy
        first = True
        for piece in pieces:
            if held and not piece.first:
                tail = held[-1] if len(held[-1]) >= _WINDOW else "".join(held)
                if not self.holds(tail, piece.text):
                    self.joined += 1
                    held.append(piece.text)
                    continue
            if held:
                yield "".join(held), first
            held, first = [piece.text], piece.first
        if held:
            yield "".join(held), first


def _around(data: bytes, at: int, errors: str) -> tuple[str, str]:
    """The text on either side of a place between two characters."""
    left = max(0, at - _LONGEST * _WINDOW)
    while left < at and data[left] & 0xC0 == 0x80:
        left += 1
    decode = codecs.getincrementaldecoder("utf-8")(errors).decode  # the right side may end within a character
    return data[left:at].decode("utf-8", errors), decode(data[at : at + _LONGEST * _WINDOW])
