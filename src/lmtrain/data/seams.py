"""Long documents in pieces: each cut is proven not to change the tokens, or the pieces are joined again.

A tokenizer that splits text into words first gives the same ids for ``left + right`` and for ``left`` and
``right`` apart when no word crosses the cut. One that looks at the whole text, or that puts a space before
every text (Llama's), does not::

    GPT-2    "…return x\\n" | "def f():…"    ids(left + right) == ids(left) + ids(right)   cut kept
    Llama    "…return x\\n" | "def f():…"    right begins with "▁" on its own              pieces joined

Both sides of the comparison are short windows around the cut, encoded by the plain engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from lmtrain.core.types import Piece
from lmtrain.data.tokenization import Encoder

_WINDOW = 256  # characters on either side of a cut


class Seams:
    """Proves cuts with the plain engine and counts what it found."""

    def __init__(self, plain: Encoder) -> None:
        self._plain = plain
        self.kept = 0
        self.joined = 0

    def holds(self, left: str, right: str) -> bool:
        """Whether encoding the two apart gives the ids of encoding them together."""
        left, right = left[-_WINDOW:], right[:_WINDOW]
        ids, offsets = self._plain.encode([left + right, left, right])
        return np.array_equal(ids[: offsets[1]], ids[offsets[1] :])

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
                self.kept += 1
            if held:
                yield "".join(held), first
            held, first = [piece.text], piece.first
        if held:
            yield "".join(held), first

    @property
    def line(self) -> str | None:
        """What to tell the user, if anything."""
        if not self.joined:
            return None
        return (
            f"{self.joined:,} cuts through long documents would have changed tokens, so those were tokenized "
            "in one go: memory grows with the longest document"
        )
