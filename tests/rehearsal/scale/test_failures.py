"""The simulation against Daly's exact expectation, and its best interval against Young's and Daly's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lmtrain.rehearsal.scale.failures import Failures, Saving, expect, play
from lmtrain.rehearsal.scale.intervals import daly, young
from lmtrain.rehearsal.scale.outlook import play_through

MTBF, RESTART = 36_000.0, 300.0
PAUSES = [30.0, 600.0, 3600.0]


def expected_time(work: float, interval: float, pause: float, restart: float) -> float:
    """Seconds that ``work`` takes with exponential failures, exactly (Daly 2006): each interval with its pause, and
    each restart, begins again when a failure falls into it."""
    return work / interval * MTBF * math.exp(restart / MTBF) * math.expm1((interval + pause) / MTBF)


class Fixed:
    """Failures at given moments, for playing a run by hand."""

    def __init__(self, *gaps: float) -> None:
        self._gaps = [*gaps, math.inf]

    def draw(self, stream: np.random.Generator, count: int) -> np.ndarray:
        return np.array(self._gaps[::-1])


def played(work: float, saving: Saving, *gaps: float) -> tuple[float, ...]:
    one = play(work, saving, Fixed(*gaps), np.random.default_rng(0))  # type: ignore[arg-type]
    assert one is not None
    return one.work, one.pauses, one.again, one.restarts, one.failures


def test_runs_played_by_hand() -> None:
    saving = Saving(interval=10, pause=2, write=3, restart=5)
    assert played(30, saving) == (30, 6, 0, 0, 0)
    # 10 of work, a pause until 12, on disk at 15: a failure at 14 undoes all of it, one at 16 leaves 10
    assert played(30, saving, 14) == (30, 6, 14, 5, 1)
    assert played(30, saving, 16) == (30, 6, 4, 5, 1)
    # a second failure 2 seconds into the restart begins it anew
    assert played(30, saving, 16, 2) == (30, 6, 4, 7, 2)
    # of 25 seconds the last save comes at the end; a failure in it leaves the two before
    assert played(25, saving, 30) == (25, 6, 6, 5, 1)


def test_a_run_that_never_gets_on_is_told_so() -> None:
    assert expect(1000, Saving(10, 5, 0, 10), Failures(0.5), runs=1) is None
    assert play_through(1000, Saving(10, 5, 0, 10), Failures(0.5)) is None


@pytest.mark.parametrize("pause", PAUSES)
def test_the_mean_is_daly_s_expectation(pause: float) -> None:
    for interval in (daly(pause, MTBF) / 2, daly(pause, MTBF), 2 * daly(pause, MTBF)):
        mean = expect(2000 * interval, Saving(interval, pause, 0, RESTART), Failures(MTBF), runs=8)
        assert mean is not None
        assert mean.wall == pytest.approx(expected_time(2000 * interval, interval, pause, RESTART), rel=0.02)


@pytest.mark.parametrize("pause", PAUSES)
def test_the_best_interval_is_daly_s(pause: float) -> None:
    best = daly(pause, MTBF)
    around = best * np.exp(np.linspace(-0.7, 0.7, 13))
    walls = []
    for interval in around:
        mean = expect(6000 * MTBF, Saving(float(interval), pause, 0, RESTART), Failures(MTBF), runs=1)
        assert mean is not None
        walls.append(mean.wall)
    curve = np.polynomial.Polynomial.fit(np.log(around / best), walls, 3)
    fine = np.linspace(-0.7, 0.7, 2001)
    assert abs(math.exp(fine[np.argmin(curve(fine))]) - 1) < 0.06
    # Young's is the same where the pause is short, and too long where it is not
    assert young(pause, MTBF) / best == pytest.approx(1, abs=0.03) if pause < 60 else young(pause, MTBF) > best


@pytest.mark.parametrize("pause", [1.0, 100.0, 10_000.0, 50_000.0])
def test_daly_s_interval_is_next_to_the_exact_one(pause: float) -> None:
    """The derivative of the expectation is zero where (1 − τ/M)·exp((τ + δ)/M) = 1, found by halving."""
    low, high = 0.0, MTBF
    for _ in range(100):
        middle = (low + high) / 2
        rising = (1 - middle / MTBF) * math.exp((middle + pause) / MTBF) < 1
        low, high = (low, middle) if rising else (middle, high)
    assert daly(pause, MTBF) == pytest.approx(low, rel=0.005 if pause < MTBF else 0.04)
    assert daly(3 * MTBF, MTBF) == MTBF


def test_a_checkpoint_counts_when_it_is_on_disk() -> None:
    """Written in the background it costs a share of (write / MTBF) more than one that counts at once."""
    at_once = expect(3000 * MTBF, Saving(3000, 10, 0, RESTART), Failures(MTBF), runs=1)
    later = expect(3000 * MTBF, Saving(3000, 10, 1500, RESTART), Failures(MTBF), runs=1)
    assert at_once is not None and later is not None
    assert (later.wall - at_once.wall) / at_once.work == pytest.approx(1500 / MTBF, rel=0.1)


@pytest.mark.parametrize("shape", [1.0, 0.7])
def test_the_mean_time_between_failures_is_what_was_asked(shape: float) -> None:
    gaps = Failures(MTBF, shape).draw(np.random.default_rng(3), 200_000)
    assert gaps.mean() == pytest.approx(MTBF, rel=0.01)
    spread = {1.0: 1.0, 0.7: 1.462}[shape]  # Γ(1 + 2/k)/Γ(1 + 1/k)² − 1, its root
    assert gaps.std() / gaps.mean() == pytest.approx(spread, rel=0.02)


def test_the_same_seed_is_the_same_run_and_long_runs_are_scaled() -> None:
    saving = Saving(2000, 50, 100, 300)
    one, same, other = (play_through(1e6 * MTBF, saving, Failures(MTBF), seed=seed) for seed in (1, 1, 2))
    assert one == same != other and one is not None and other is not None
    assert one.work == pytest.approx(1e6 * MTBF)
    assert one.lost == pytest.approx(other.lost, rel=0.03)
    assert one.failures == pytest.approx(one.wall / MTBF, rel=0.05)
