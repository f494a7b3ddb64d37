"""Which example comes when: functions of (seed, epoch), and of the process for evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from lmtrain.core.streams import permutation

_CHUNK = 1 << 16


class EpochOrder(Sampler[int]):
    """The order of one epoch, ``permutation(seed, epoch, count)``, whatever was drawn before.

    It yields *counters*, ``epoch · count + index``, so that whoever makes the example knows the epoch too,
    in a loader's worker as well; with ``counters=False`` it yields plain indices, for data sets that are
    not ours.

    ``multiple`` lengthens the epoch to a multiple of the global batch, as several processes need, with
    fillers: ``~counter`` of an example that is to be laid out but not predicted (see
    :class:`EpochExamples`). So every process makes the same steps, and no example counts twice.
    """

    def __init__(
        self, count: int, seed: int, *, shuffle: bool = True, counters: bool = True, multiple: int = 1
    ) -> None:
        self.count = count
        self.seed = seed
        self.shuffle = shuffle
        self.counters = counters
        self.epoch = 0
        self._fillers = -count % multiple if counters else 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count + self._fillers

    def __iter__(self) -> Iterator[int]:
        order = permutation(self.seed, self.epoch, self.count) if self.shuffle else np.arange(self.count)
        if self.counters:
            order = order + self.epoch * self.count
        for start in range(0, self.count, _CHUNK):  # Python integers for a part at a time
            yield from order[start : start + _CHUNK].tolist()
        for filler in range(self._fillers):
            yield ~int(order[filler % self.count])


class RankBatches(Sampler[list[int]]):
    """The batches that one of several processes evaluates: its rank's, then every ``world``-th after it.

    Together the processes see each example once: none is repeated to make the numbers even. Where the model
    itself waits for the other processes (``equal``, for sharded weights), a process that is one batch short
    runs its first batch again; ``own`` says after how many batches to stop counting.
    """

    def __init__(self, count: int, batch_size: int, *, rank: int = 0, world: int = 1, equal: bool = False) -> None:
        self.count = count
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        total = math.ceil(count / batch_size)
        self.own = len(range(rank, total, world))
        self._rounds = math.ceil(total / world) if equal else self.own

    def __len__(self) -> int:
        return self._rounds

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self._rounds):
            batch = self.rank + number * self.world if number < self.own else 0
            start = batch * self.batch_size
            yield list(range(start, min(start + self.batch_size, self.count)))
