"""Long documents in pieces: each cut is proven not to change the tokens, or the pieces are joined again.

A tokenizer that splits text into words first gives the same ids for ``left + right`` and for ``left`` and
``right`` apart when no word crosses the cut. One that looks at the whole text, or that puts a space before
every text (Llama's), does not::

    GPT-2    "…return x\\n" | "def f():…"    ids(left + right) == ids(left) + ids(right)   cut kept
    Llama    "…return x\\n" | "def f():…"    right begins with "▁" on its own              pieces joined

Both sides of the comparison are short windows around the cut. They are encoded by the engine that encodes the text:
the fast one, where it is used, is proven equal to the plain one apart from this, and 2,000 cuts of a gigabyte cost the
plain one 2 s of 17.
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

SHORTEST = 251
"""Characters on either side of a cut that prove it; a prime, as 256 would show no cut through a run of spaces."""
_LONGEST = 4  # bytes of a character in UTF-8
_TRIED = 4  # places of each kind
# As cutting.cut_at has them: after a line break, before a space, each between two visible characters. The byte that an
# expression begins with is found by the C library; behind the first the cut is behind it, behind the second before it.
_PLACES = ((re.compile(rb"\n(?<=\S\n)(?=\S)"), 1), (re.compile(rb" (?<=\S )(?=\S)"), 0))


class Seams:
    """Proves cuts with the engine that encodes what is cut, and counts those that did not hold."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.joined = 0

    def holds(self, left: str, right: str) -> bool:
        """Whether encoding the two apart gives the ids of encoding them together."""
        left, right = left[-SHORTEST:], right[:SHORTEST]
        ids, offsets = self._encoder.encode([left + right, left, right])
        return np.array_equal(ids[: offsets[1]], ids[offsets[1] :])

    def boundary(self, source: TextSource, near: int, window: int) -> int | None:
        """The first byte from ``near`` on, within ``window`` bytes, where a document of plain UTF-8 may be read in two.

        None where there is no such place, or none of the first few holds.
        """
        before = near - min(near, _LONGEST * SHORTEST + 2)
        size = source.file.size
        with source.file.open((before, min(size, near + window + _LONGEST * SHORTEST))) as stream:
            data = stream.read(near + window + _LONGEST * SHORTEST - before)
        for place, width in _PLACES:
            for found in islice(place.finditer(data, near - before - width, near - before + window), _TRIED):
                at = found.start() + width
                try:
                    left, right = _around(data, at, source.reading.encoding_errors)
                except UnicodeDecodeError:
                    return None  # whoever reads it says where
                if self.holds(left, right):
                    return before + at
        return None

    def proven(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The same pieces; those whose cut does not hold come as one, and those too short to prove it."""
        held: list[Piece] = []  # a list, so that joining many pieces costs one copy
        for piece in pieces:
            if held and not piece.first:
                is_short = min(len(held[-1].text), len(piece.text)) < SHORTEST
                if is_short or not self.holds(held[-1].text, piece.text):
                    self.joined += not is_short
                    held.append(piece)
                    continue
            if held:
                yield _joined(held)
            held = [piece]
        if held:
            yield _joined(held)


def _joined(pieces: list[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    return Piece("".join(piece.text for piece in pieces), sum(piece.n_bytes for piece in pieces), pieces[0].first)


def _around(data: bytes, at: int, errors: str) -> tuple[str, str]:
    """The text on either side of a place between two characters."""
    left = max(0, at - _LONGEST * SHORTEST)
    while left < at and data[left] & 0xC0 == 0x80:
        left += 1
    decode = codecs.getincrementaldecoder("utf-8")(errors).decode  # the right side may end within a character
    return data[left:at].decode("utf-8", errors), decode(data[at : at + _LONGEST * SHORTEST])
