"""Learning rates as functions of the micro-batches done, which is what the original's schedules count.

Facts of microsoft/LoRA at c4593f0, ``examples/NLG/src/optimizer.py``, kept on purpose: the cosine does not begin where
the warm-up ends but is that of the whole run, and its first micro-batch has a rate of 0 even without warm-up; a cycle's
rate before its first interval is that of its end; ``inv_sqrt`` and ``dev_perf`` can be asked for and are no schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

Rate = Callable[[int], float]
"""The learning rate after so many micro-batches."""


def linear(rate: float, warmup: int, max_step: int) -> Rate:
    """Up from 0 in ``warmup`` micro-batches, then down to 0 at ``max_step``."""

    def at(done: int) -> float:
        if done < warmup:
            return rate * (done / max(1, warmup))
        return rate * max(0.0, (max_step - done) / max(1, max_step - warmup))

    return at


def constant(rate: float, warmup: int = 0) -> Rate:
    """Up from 0 in ``warmup`` micro-batches, then ``rate``."""

    def at(done: int) -> float:
        return rate * (done / max(1, warmup)) if done < warmup else rate

    return at


def cosine(rate: float, warmup: int, max_step: int) -> Rate:
    """Up from 0 in ``warmup`` micro-batches, then rate·½(1 + cos(π·done/max_step)): no 0 of its own at the warm-up."""

    def at(done: int) -> float:
        if done == 0:
            return 0.0
        if done < warmup:
            return rate * done / warmup
        return rate * 0.5 * (1 + math.cos(math.pi * min(done, max_step) / max_step))

    return at


def cycle(steps: Sequence[int], rates: Sequence[float]) -> Rate:
    """Straight lines from one of ``steps`` to the next; behind the last of them, the last of ``rates``."""

    def at(done: int) -> float:
        if done == 0:
            return rates[0]
        for (begin, end), (low, high) in zip(pairwise(steps), pairwise(rates), strict=False):
            if begin <= done < end:
                part = (done - begin) / (end - begin + 1e-6)
                return part * high + (1 - part) * low
        return rates[-1]

    return at


class ByMicroBatch(LRScheduler):
    """Sets the rate of every group to that of a number of micro-batches, :meth:`move_to`.

    The Trainer steps its scheduler once an update, which changes nothing here.
    """

    def __init__(self, optimizer: Optimizer, rate: Rate) -> None:
        self.rate = rate
        self.done = 0
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        return [self.rate(self.done)] * len(self.optimizer.param_groups)

    def move_to(self, done: int) -> None:
        """After ``done`` micro-batches."""
        self.done = done
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(done)
        self._last_lr = self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.move_to(state_dict["done"])
