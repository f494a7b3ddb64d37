"""Which example comes when: functions of (seed, epoch), and of the process for evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from lmtrain.core.streams import permutation, stream
from lmtrain.engine.batches.ordering import Upcoming
from lmtrain.engine.batches.windows import InWindows

_CHUNK = 1 << 16
_LOOKS = 8  # parts of a window after which there is a look ahead


@dataclass(frozen=True)
class ByLength:
    """Examples of like length together, for models whose batches are padded: ``lengths`` (n,) of all examples.

    ``step_size`` examples make a step, over all micro-batches and processes: so how a step is divided changes
    nothing here either. ``window`` steps of the shuffled order are sorted by length, cut into steps again, and these
    shuffled: a step then has examples of like length, which is faster and not the same training. With a window of 1
    a step keeps its examples and only its micro-batches become alike: the same training.
    """

    lengths: np.ndarray
    step_size: int
    window: int = 50

    def arrange(self, order: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """``order`` (n,) with like lengths together: a function of it, the seed and the epoch.

        What does not fill a step stays at the end.
        """
        random = stream(seed, "by length", epoch)
        full = len(order) // self.step_size * self.step_size
        borders = [*range(0, full, self.window * self.step_size), full]
        parts = []
        for start, end in pairwise(borders):
            steps = self._sorted(order[start:end]).reshape(-1, self.step_size)
            parts.append(random.permutation(steps).reshape(-1))
        return np.concatenate([*parts, self._sorted(order[full:])])

    def _sorted(self, part: np.ndarray) -> np.ndarray:
        return part[np.argsort(self.lengths[part], kind="stable")]


class EpochOrder(Sampler[int]):
    """The order of one epoch, ``permutation(seed, epoch, count)``, whatever was drawn before.

    It yields *counters*, ``epoch · count + index``, so that whoever makes the example knows the epoch too,
    in a loader's worker as well; with ``counters=False`` it yields plain indices, for data sets that are
    not ours.

    ``multiple`` lengthens the epoch to a multiple of the global batch, as several processes need, with
    fillers: ``~counter`` of an example that is to be laid out but not predicted (see
    :class:`EpochExamples`). So every process makes the same steps, and no example counts twice.

    ``by_length`` arranges the examples for batches that are padded; see :class:`ByLength`. ``windows`` shuffles them
    within bounds; see :class:`~lmtrain.engine.batches.windows.InWindows`. ``upcoming`` is told half a window ahead
    what comes.

    ``start`` is the place in the epoch's order that the next iteration begins at: a run resumed in mid-epoch asks for
    none of the examples before, not even their numbers.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        *,
        shuffle: bool = True,
        counters: bool = True,
        multiple: int = 1,
        by_length: ByLength | None = None,
        windows: InWindows | None = None,
        upcoming: Upcoming | None = None,
    ) -> None:
        self.count = count
        self.seed = seed
        self.shuffle = shuffle
        self.counters = counters
        self.by_length = by_length
        self.windows = windows if shuffle else None
        self.upcoming = upcoming
        self.epoch = 0
        self.start = 0
        self._fillers = -count % multiple if counters else 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count + self._fillers

    def __iter__(self) -> Iterator[int]:
        if self.windows is not None and self.by_length is None:
            yield from self._in_windows(self.windows)
            return
        if self.windows is not None:
            order = self.windows.at(np.arange(self.count), self.seed, self.epoch)
        else:
            order = permutation(self.seed, self.epoch, self.count) if self.shuffle else np.arange(self.count)
        if self.by_length is not None:
            order = self.by_length.arrange(order, self.seed, self.epoch)
        if self.counters:
            order = order + self.epoch * self.count
        for start in range(min(self.start, self.count), self.count, _CHUNK):  # Python integers for a part at a time
            yield from order[start : start + _CHUNK].tolist()
        for filler in range(max(0, self.start - self.count), self._fillers):
            yield ~int(order[filler % self.count])

    def _in_windows(self, windows: InWindows) -> Iterator[int]:
        """As :meth:`__iter__`, made a part at a time, with a look ahead."""
        a_window = windows.window * windows.lanes
        part = max(1, min(_CHUNK, a_window // _LOOKS))
        ahead = _Ahead(self, windows, a_window // 2) if self.upcoming is not None else None
        for places in windows.runs(min(self.start, self.count), part):
            if ahead is not None:
                ahead.until(int(places[-1]) + 1)
            examples = windows.at(places, self.seed, self.epoch)
            yield from (examples + self.epoch * self.count if self.counters else examples).tolist()
        for filler in range(max(0, self.start - self.count), self._fillers):
            example = windows.at(np.array([filler % self.count]), self.seed, self.epoch)
            yield ~(int(example[0]) + self.epoch * self.count)


class _Ahead:
    """Tells of the places of an epoch once each, ``reach`` places before they come."""

    def __init__(self, order: EpochOrder, windows: InWindows, reach: int) -> None:
        self._order, self._windows, self._reach = order, windows, reach
        self._told = order.start

    def until(self, place: int) -> None:
        order, end = self._order, min(place + self._reach, self._order.count)
        if order.upcoming is not None and end > self._told:
            places = np.arange(self._told, end)
            order.upcoming.expect(places, self._windows.at(places, order.seed, order.epoch))
            self._told = end


class BatchesFrom(Sampler[list[int]]):
    """The batches of ``batches`` over ``order`` from batch number ``first`` on, for whoever drops the first ones.

    Accelerate's ``skip_first_batches`` counts off what it skips; what it gets to count is empty here, and costs
    nothing, whatever the size of a batch. ``examples`` is where in the order that batch begins, over all processes.
    """

    def __init__(self, batches: Any, order: EpochOrder, first: int, examples: int) -> None:
        self.batches, self.order, self.first, self.examples = batches, order, first, examples

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        yield from repeat([], self.first)
        self.order.start = self.examples
        yield from self.batches


class RankBatches(Sampler[list[int]]):
    """The batches that one of several processes evaluates: its rank's, then every ``world``-th after it.

    Together the processes see each example once: none is repeated to make the numbers even. Where the model
    itself waits for the other processes (``equal``, for sharded weights), a process that is one batch short
    runs its first batch again; ``own`` says after how many batches to stop counting.

    With ``lengths`` (of all examples) the longest come first, like with like, so that batches need little padding and
    memory that is too small shows at once. Sums do not depend on it.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        rank: int = 0,
        world: int = 1,
        equal: bool = False,
        lengths: np.ndarray | None = None,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self._order = np.arange(count) if lengths is None else np.argsort(-lengths, kind="stable")
        total = math.ceil(count / batch_size)
        self.own = len(range(rank, total, world))
        self._rounds = math.ceil(total / world) if equal else self.own
        self.common = self._rounds if equal else total // world  # that no process has fewer than

    def __len__(self) -> int:
        return self._rounds

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self._rounds):
            batch = self.rank + number * self.world if number < self.own else 0
            start = batch * self.batch_size
            yield self._order[start : start + self.batch_size].tolist()
