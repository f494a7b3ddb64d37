"""Which hypothesis is in which row of a batch, so that few keys and values have to be moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Move:
    """``rows`` rows afterwards; what is in the row ``sources[i]`` goes to the row ``places[i]``, all at once.

    ``whole[i]`` says that the row held another context before. A row that is not named stays as it is.
    """

    rows: int
    sources: list[int]
    places: list[int]
    whole: list[bool]


class BeamRows:
    """The rows of a batch: those in use are the first ones, without gaps.

    ``contexts[row]`` is the context whose keys and values a row holds, also after it went out of use.
    """

    def __init__(self, contexts: Sequence[int]) -> None:
        self.contexts = list(contexts)

    def place(self, contexts: Sequence[int], parents: Sequence[int]) -> tuple[list[int], Move]:
        """Rows for hypotheses of ``contexts`` that go on from the rows ``parents``, and what has to be moved for it.

        The first child of a parent stays in its row, unless that is beyond those needed; others take rows that nothing
        goes on from, of their own context if there are any::

            parents 0 0 2 2 2   →   rows 0 1 2 3 4   (0 and 2 stay; 1, 3 and 4 were free or are new)
        """
        count = len(parents)
        rows: dict[int, int] = {}  # by child
        taken: set[int] = set()
        for child, parent in enumerate(parents):
            if parent < count and parent not in taken:
                rows[child] = parent
                taken.add(parent)
        self.contexts += [-1] * (count - len(self.contexts))
        free = defaultdict(list)
        for row in range(count):
            if row not in taken:
                free[self.contexts[row]].append(row)
        for child in range(count):
            if child not in rows and free[contexts[child]]:
                rows[child] = free[contexts[child]].pop(0)
        left = iter([row for those in free.values() for row in those])
        for child in range(count):
            if child not in rows:
                rows[child] = next(left)
        moved = [child for child in range(count) if rows[child] != parents[child]]
        move = Move(
            count,
            [parents[child] for child in moved],
            [rows[child] for child in moved],
            [self.contexts[rows[child]] != contexts[child] for child in moved],
        )
        for child in moved:
            self.contexts[rows[child]] = contexts[child]
        return [rows[child] for child in range(count)], move
