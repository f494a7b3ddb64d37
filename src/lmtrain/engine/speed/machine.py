"""What this machine can multiply at best: the yardstick for model FLOP/s utilisation.

Measured, not read from a data sheet: on a CPU the peak depends on the threads a run has and on clock speeds under load,
and a GPU's printed figure is reached by no program.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch

from lmtrain.config.values import YES
from lmtrain.core.clock import now
from lmtrain.models.formats import FORMATS

_BUDGET_S = 0.15
_EACH_S = 0.03  # for each size but the last
_SMALLEST = {"cpu": 256}  # sides of the square matrices
_SMALLEST_ELSEWHERE, _LARGEST = 2048, 8192  # at 8,192 three of them take 0.8 GB in fp32


def best_device(*, use_cpu: bool = False) -> torch.device:
    """The machine's accelerator; the CPU where there is none, or it is to be left alone, be it that a launcher says so
    (``accelerate launch --cpu``, which the Trainer heeds)."""
    left_alone = use_cpu or os.environ.get("ACCELERATE_USE_CPU", "").lower() in YES
    found = None if left_alone else torch.accelerator.current_accelerator(check_available=True)
    return found or torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Peak:
    """The most floating-point operations a second that a matrix product reached, and how it was measured.

    ``side`` is that of the largest square matrices tried, ``threads`` those of a CPU (0 on a GPU).
    """

    flops: float
    precision: str
    device: str
    threads: int
    side: int

    def as_dict(self) -> dict[str, Any]:
        """For ``decisions.json``."""
        return asdict(self)


def peak_of(device: torch.device, precision: str, decided: dict[str, Any] | None = None) -> Peak:
    """The peak of ``device`` in ``precision`` ("fp32", "bf16", "fp16"), with the threads that torch has now.

    ``decided`` is what an earlier start of the run measured (:meth:`Peak.as_dict`); it is taken again where it was
    measured under the same conditions, so that a run has one yardstick. Measuring takes about 0.2 s.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    with suppress(TypeError):  # nothing, or written by another version
        before = Peak(**(decided or {}))
        if (before.precision, before.device, before.threads) == (precision, device.type, threads):
            return before
    return _measured(device, precision, threads)


@cache
def _measured(device: torch.device, precision: str, threads: int) -> Peak:
    """The best of several products of each size, growing while a few of the next size still fit into the budget and
    into the memory of a GPU."""
    smallest = _SMALLEST.get(device.type, _SMALLEST_ELSEWHERE)
    _Product(smallest, device, precision)  # what a library makes for its first product is no part of the budget
    end = time.perf_counter() + _BUDGET_S
    side, best = smallest // 2, 0.0
    quickest = 0.0
    with suppress(torch.OutOfMemoryError):
        while side < _LARGEST and time.perf_counter() + 3 * 8 * quickest < end:
            side *= 2
            last = 2 * side > _LARGEST
            quickest = _quickest(side, device, precision, end if last else time.perf_counter() + _EACH_S)
            best = max(best, 2 * side**3 / quickest)
        if time.perf_counter() < end:
            best = max(best, 2 * side**3 / _quickest(side, device, precision, end))
    return Peak(best, precision, device.type, threads, side)


def _quickest(side: int, device: torch.device, precision: str, until: float) -> float:
    """Seconds of the quickest product until then. Not of one: a product waits while other work holds a core."""
    product = _Product(side, device, precision)
    best = product.seconds()
    while time.perf_counter() < until:
        best = min(best, product.seconds())
    return best


class _Product:
    """The product of two square matrices, drawn at random: a GPU's clock depends on the values it multiplies."""

    def __init__(self, side: int, device: torch.device, precision: str) -> None:
        self._device = device
        draw = torch.Generator(device).manual_seed(0)  # the run's own stream is left alone
        self._left, self._right = (
            torch.randn(side, side, generator=draw, device=device, dtype=FORMATS[precision]) for _ in range(2)
        )
        self._out = torch.empty_like(self._left)
        self.seconds()  # the first one prepares the kernel

    def seconds(self) -> float:
        start = now(self._device)
        torch.mm(self._left, self._right, out=self._out)
        return now(self._device) - start
