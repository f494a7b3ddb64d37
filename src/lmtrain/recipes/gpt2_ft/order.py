"""Which example comes in which micro-batch: the original's order, its epochs strung together.

The original (microsoft/LoRA at c4593f0, ``examples/NLG/src``) pads a data set of ``n`` examples to a multiple of the
batch size and shuffles the places by torch's ``DistributedSampler``, a permutation drawn from ``random_seed + epoch``,
epochs counted from 1 (``gpt2_ft.py``). A place behind the last example is filled with an example at random, from one
``random.Random(911)`` for each data set, which nobody ever resets (``data_utils.py``, ``FT_Dataset.__getitem__``)::

    n = 5, batches of 2     epoch 1:  3 0 | 5 1 | 4 2      place 5 is none of the examples 0 … 4:
                                      3 0 | r 1 | 4 2      r is the generator's first number, epoch 2's its second

All is a function of counters here too, so that a run goes on in mid-epoch with what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as count_from
from random import Random

import numpy as np
import torch
from torch.utils.data import Sampler

_FILL_SEED = 911


@dataclass(frozen=True, slots=True)
class Plan:
    """How many micro-batches a run makes.

    ``an_epoch``: of one pass over the data; ``total``: of the whole run; ``max_step``: where the schedule ends, which
    lies behind the run's end when ``--max_epoch`` stops it earlier.
    """

    an_epoch: int
    total: int
    max_step: int

    def epoch(self, micro_batch: int) -> int:
        """The epoch, from 1, of a micro-batch counted from 1."""
        return (micro_batch - 1) // self.an_epoch + 1

    def place(self, micro_batch: int) -> int:
        """Its place in its epoch, from 1."""
        return (micro_batch - 1) % self.an_epoch + 1

    def ends_epoch(self, micro_batch: int) -> bool:
        return micro_batch == self.total or micro_batch % self.an_epoch == 0


def plan(examples: int, batch_size: int, max_step: int | None, max_epoch: int | None) -> Plan:
    """The length of a run. One of the two limits has to be given; the earlier one ends the run.

    A ``max_step`` of 0, which ``--scheduler cycle`` gives when its only interval begins at 0, is passed before it is
    looked at, and the run ends with its first epoch.
    """
    an_epoch = -(-examples // batch_size)
    if max_step is None:
        if max_epoch is None:
            raise ValueError("a run ends after max_step micro-batches or max_epoch epochs; neither is given")
        max_step = max_epoch * an_epoch
    total = max_step if max_step > 0 else an_epoch
    return Plan(an_epoch, total if max_epoch is None else min(total, max_epoch * an_epoch), max_step)


class RunOrder(Sampler[int]):
    """The examples of a whole run, ``batch_size`` for each of its ``micro_batches``, one epoch after the other."""

    def __init__(self, examples: int, batch_size: int, micro_batches: int, seed: int) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.micro_batches = micro_batches
        self.seed = seed

    def __len__(self) -> int:
        return self.micro_batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        random = Random(_FILL_SEED)
        left = len(self)
        for epoch in count_from(1):
            order = _filled(_places(self.examples, self.batch_size, self.seed + epoch), self.examples, random)
            yield from order[:left].tolist()
            left -= len(order)
            if left <= 0:
                return


def validation_batches(examples: int, batch_size: int, seed: int, evaluation: int) -> np.ndarray:
    """The examples of an evaluation, int64 of shape (batches, batch_size); ``evaluation`` counts from 0.

    The original never tells this sampler the epoch, so the places are those of epoch 0 every time; only what fills the
    last places is drawn anew.
    """
    places = _places(examples, batch_size, seed)
    random = Random(_FILL_SEED)
    for _ in range(evaluation * (len(places) - examples)):
        random.randint(0, examples - 1)
    return _filled(places, examples, random).reshape(-1, batch_size)


def _places(examples: int, batch_size: int, seed: int) -> np.ndarray:
    places = -(-examples // batch_size) * batch_size
    order = torch.randperm(places, generator=torch.Generator().manual_seed(seed))
    return order.numpy()


def _filled(places: np.ndarray, examples: int, random: Random) -> np.ndarray:
    """``places`` with an example in each; those behind the last one are filled in the order in which they come."""
    order = places.copy()
    for place in np.flatnonzero(places >= examples):
        order[place] = random.randint(0, examples - 1)
    return order
