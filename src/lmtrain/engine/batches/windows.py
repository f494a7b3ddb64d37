"""An order of examples that keeps together what lies together: for stores larger than memory, or far away.

::

    store     |--- chunk 0 ---|--- chunk 1 ---|--- chunk 2 ---|  …      what is fetched at once
    chunks    2 0 5 | 4 1 3                                             in an order of (seed, epoch)
    lanes     lane 0  lane 1                                            equal parts of that, read side by side
    windows   [2 0] [5] | [4 1] [3]                                     inside each, examples in any order
    a step    takes its first examples from lane 0, the next from lane 1, …

Each step is mixed from all lanes, and each of several processes, which takes the same places of every step, reads the
chunks of its own lanes. The example at a place is a function of (seed, epoch, place): nothing earlier is read for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lmtrain.core.streams import stream
from lmtrain.data.layouts.base import ByNumber

MOST_LANES = 64
_CHUNKS_A_LANE = 8  # of a window, which begins and ends inside chunks: of fewer, these would be much of what is kept
_KEPT = 4 * MOST_LANES  # permutations of windows: those that are read, and those that are looked ahead to


@dataclass(frozen=True)
class InWindows:
    """``borders`` (C + 1,): the number of the first example of each chunk, and how many examples there are.

    ``window``: examples that are shuffled among each other in each of ``lanes``; ``step_size``: examples of a step
    over all processes, a multiple of ``lanes``. Examples that fill no step come at the end of the epoch.
    """

    borders: np.ndarray
    window: int
    lanes: int
    step_size: int

    def __post_init__(self) -> None:
        if self.step_size % self.lanes or self.lanes < 1 or self.window < 1:
            raise ValueError(f"{self.lanes} lanes in steps of {self.step_size}, windows of {self.window}")

    @classmethod
    def of(
        cls, first_tokens: np.ndarray | ByNumber, chunk_tokens: int, window_tokens: int, step_size: int
    ) -> InWindows | None:
        """The order of examples that begin at these tokens of a store, ascending; None where the windows would hold
        them all, and where there is no order in which they lie.

        ``window_tokens``: of all lanes together. Of the examples only some 30 a chunk are looked at.
        """
        count = len(first_tokens)
        if count < 2 or not ascends(first_tokens):
            return None
        start, end = int(first_tokens[0]), int(first_tokens[count - 1])
        span = end - start + 1
        if window_tokens >= span:
            return None
        chunks = np.arange(start // chunk_tokens + 1, end // chunk_tokens + 1)
        borders = np.unique(np.concatenate([[0], _first_from(first_tokens, chunks * chunk_tokens), [count]]))
        # A lane's window holds several chunks, and no lane has less than two.
        most = max(1, min(MOST_LANES, window_tokens // (_CHUNKS_A_LANE * chunk_tokens), (len(borders) - 1) // 2))
        lanes = next(n for n in range(min(most, step_size), 0, -1) if step_size % n == 0)
        window = max(1, round(count * window_tokens / span / lanes))
        return cls(borders, window, lanes, step_size)

    @property
    def count(self) -> int:
        return int(self.borders[-1])

    @property
    def _steps(self) -> int:
        return self.count // self.step_size

    def at(self, places: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """The examples at these ``places`` (n,) of the epoch's order."""
        share = self.step_size // self.lanes  # examples of a step from each lane
        length = self._steps * share  # of a lane
        step, slot = np.divmod(places, self.step_size)
        lane, inside = slot // share, step * share + slot % share
        rest = step >= self._steps  # the last ones, which are a lane by themselves
        lane = np.where(rest, self.lanes, lane)
        inside = np.where(rest, places - self._steps * self.step_size, inside)
        sizes = np.where(rest, self.count - self._steps * self.step_size, length)
        window = inside // self.window
        shuffled = np.empty(len(places), np.int64)
        for key in {*zip(lane.tolist(), window.tolist(), sizes.tolist(), strict=True)}:
            number, group, size = key
            here = (lane == number) & (window == group)
            begin = group * self.window
            mixed = _permutation(seed, epoch, number, group, min(self.window, size - begin))
            shuffled[here] = begin + mixed[inside[here] - begin]
        return self._in_chunks(lane * length + shuffled, seed, epoch)

    def _in_chunks(self, numbers: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """The examples with these numbers when the chunks are in the epoch's order."""
        order, starts = self._chunks(seed, epoch)
        chunk = np.searchsorted(starts, numbers, "right") - 1
        return self.borders[order[chunk]] + numbers - starts[chunk]

    def _chunks(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = _permutation(seed, epoch, -1, 0, len(self.borders) - 1)
        return order, np.concatenate([[0], np.cumsum(np.diff(self.borders)[order])])

    def runs(self, start: int, length: int) -> Iterator[np.ndarray]:
        """The places of an epoch from ``start`` on, ``length`` at a time."""
        for begin in range(start, self.count, length):
            yield np.arange(begin, min(begin + length, self.count))


def ascends(first_tokens: np.ndarray | ByNumber) -> bool:
    """Whether examples that begin at these tokens come as they lie in the store."""
    if isinstance(first_tokens, ByNumber):
        return first_tokens.ascending
    return not (np.diff(first_tokens) < 0).any()


def _first_from(first_tokens: np.ndarray | ByNumber, tokens: np.ndarray) -> np.ndarray:
    """(C,) number of the first example that begins at each of these ``tokens`` (C,) or behind it; there is one.

    ``np.searchsorted`` for what is no array.
    """
    low, high = np.zeros(len(tokens), np.int64), np.full(len(tokens), len(first_tokens) - 1, np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        before = first_tokens[middle] < tokens
        low, high = np.where(before, np.minimum(middle + 1, high), low), np.where(before, high, middle)
    return low


@lru_cache(maxsize=_KEPT)
def _permutation(seed: int, epoch: int, lane: int, window: int, size: int) -> np.ndarray:
    return stream(seed, "windows", epoch, lane, window).permutation(size)
