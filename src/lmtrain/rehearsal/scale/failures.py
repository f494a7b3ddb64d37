"""A run that fails now and then, played through.

::

    work τ │pause│ work τ │pause│ work ╳ failure        │ = the model stands still while it is copied or written
                  ◄─ write ─►│ from here on the checkpoint counts
                                       ╳◄── restart ──►│ goes on from the newest that counts; the rest is made again

Between two failures nothing is random, so the simulation goes from event to event: failure, end of a restart (which a
failure begins anew), end of the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_AT_MOST = 200_000  # failures of one run; one that has not ended then does not get on
_DRAWN = 1024  # at once


@dataclass(frozen=True, slots=True)
class Failures:
    """Times between failures of a whole run: ``mtbf`` seconds in the mean, Weibull of ``shape`` (1: exponential; below
    1 failures come in bursts)."""

    mtbf: float
    shape: float = 1.0

    def draw(self, stream: np.random.Generator, count: int) -> np.ndarray:
        """Seconds between failures: (count,) float64."""
        scale = self.mtbf / math.gamma(1 + 1 / self.shape)
        return scale * stream.weibull(self.shape, count)


@dataclass(frozen=True, slots=True)
class Saving:
    """Every ``interval`` seconds of work training stands still for ``pause`` seconds; ``write`` seconds later the
    checkpoint counts. After a failure ``restart`` seconds pass before work goes on."""

    interval: float
    pause: float
    write: float
    restart: float


@dataclass(frozen=True, slots=True)
class Played:
    """Seconds of one run, or of many in the mean: ``wall`` in all, of which ``work`` counted, ``pauses`` were for
    saving, ``again`` was work (and pauses) that a failure undid, ``restarts`` led back to it."""

    work: float
    pauses: float
    again: float
    restarts: float
    failures: float

    @property
    def wall(self) -> float:
        return self.work + self.pauses + self.again + self.restarts

    @property
    def lost(self) -> float:
        """Share of the wall time that led nowhere."""
        return 1 - self.work / self.wall if self.wall else 0.0


def play(work: float, saving: Saving, failures: Failures, stream: np.random.Generator) -> Played | None:
    """One run of ``work`` seconds, which ends with a save. None when it does not get to its end."""
    gaps = _Gaps(failures, stream)
    cycle = saving.interval + saving.pause
    left, until = work, gaps.next()
    pauses = again = restarts = 0.0
    count = 0
    while True:
        segments = math.ceil(left / saving.interval - 1e-9)
        if until >= left + segments * saving.pause:
            return Played(work, pauses + segments * saving.pause, again, restarts, count)
        counted = max(0, min(segments - 1, math.floor((until - saving.write) / cycle)))
        left -= counted * saving.interval
        pauses += counted * saving.pause
        again += until - counted * cycle
        count += 1
        while (until := gaps.next()) < saving.restart:
            restarts += until
            count += 1
            if count > _AT_MOST:
                return None
        restarts += saving.restart
        until -= saving.restart
        if count > _AT_MOST:
            return None


class _Gaps:
    """Times between failures, one after the other."""

    def __init__(self, failures: Failures, stream: np.random.Generator) -> None:
        self._failures, self._stream = failures, stream
        self._drawn: list[float] = []

    def next(self) -> float:
        if not self._drawn:
            self._drawn = self._failures.draw(self._stream, _DRAWN).tolist()
        return self._drawn.pop()


def expect(work: float, saving: Saving, failures: Failures, *, runs: int, seed: int = 0) -> Played | None:
    """The mean of ``runs`` runs. The failures of run *i* follow from (seed, i), so that two ways of saving meet the
    same ones. None when a run does not get to its end."""
    played = []
    for number in range(runs):
        one = play(work, saving, failures, np.random.default_rng((seed, number)))
        if one is None:
            return None
        played.append((one.work, one.pauses, one.again, one.restarts, one.failures))
    return Played(*(float(value) for value in np.mean(played, axis=0)))
