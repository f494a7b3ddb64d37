from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtrain.report.series import MOST, plain, smoothed, table


def test_few_points_stay_as_they_are() -> None:
    held = table([1, 2, 4], [0.1, 0.2, 0.4], [10, 20, 40], {"loss": [3.0, math.nan, 2.0], "none": [math.nan] * 3})
    assert held.is_whole and list(held.curves) == ["loss"]
    assert held.as_json() == {
        "step": [1, 2, 4],
        "tokens": [10, 20, 40],
        "seconds": [0.1, 0.2, 0.4],
        "curves": {"loss": {"mean": [3, None, 2]}},
    }


def test_many_points_keep_their_extremes_and_their_mean() -> None:
    count = 100_000
    random = np.random.default_rng(0)
    values = random.normal(3, 0.1, count)
    values[31_415] = 9.0
    values[[500, 501]] = math.nan
    steps = np.arange(1, count + 1)
    held = table(steps, steps / 2, steps * 8, {"loss": values})
    band = held.curves["loss"]
    assert len(held) == MOST and not held.is_whole
    assert band.high.max() == 9.0 and band.low.min() == np.nanmin(values)
    sizes = held.last - held.first + 1
    assert sizes.sum() == count and held.first[0] == 1 and held.last[-1] == count
    assert np.array_equal(held.first[1:], held.last[:-1] + 1), "every step is in one stretch"
    sizes[(held.first <= 501) & (held.last >= 501)] -= 2
    assert (band.mean * sizes).sum() == pytest.approx(np.nansum(values))
    assert len(json.dumps(held.as_json())) < 200_000


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=300), st.integers(1, 40))
def test_bands_hold_their_points(values: list[float], most: int) -> None:
    steps = list(range(len(values)))
    held = table(steps, steps, steps, {"x": values}, most)
    band = held.curves["x"]
    assert len(held) <= max(most, 1)
    for first, last, low, mean, high in zip(held.first, held.last, band.low, band.mean, band.high, strict=True):
        inside = values[int(first) : int(last) + 1]
        assert low == min(inside) and high == max(inside)
        assert low - 1e-9 <= mean <= high + 1e-9


def by_hand(x: np.ndarray, y: np.ndarray, span: float) -> list[float]:
    weights = np.exp(-np.abs(x[:, None] - x[None, :]) / span)
    return ((weights * y).sum(1) / weights.sum(1)).tolist()


def test_smoothing_is_the_weighted_mean_it_says() -> None:
    random = np.random.default_rng(1)
    x = np.cumsum(random.uniform(0.1, 3, 50))
    y = random.normal(size=50)
    assert smoothed(x, y, 5.0).tolist() == pytest.approx(by_hand(x, y, 5.0))
    assert smoothed(x, y, 0.0) is y
    assert smoothed(x, np.full(50, 7.0), 5.0).tolist() == pytest.approx([7.0] * 50)


def test_smoothing_does_not_depend_on_how_densely_was_logged() -> None:
    dense = np.arange(0.0, 1000.0)
    sparse = dense[::10]
    curve = np.sin
    a = smoothed(dense, curve(dense / 100), 50.0)[::10]
    b = smoothed(sparse, curve(sparse / 100), 50.0)
    assert np.abs(a - b)[5:-5].max() < 0.02


def test_numbers_are_short() -> None:
    assert plain(np.array([1.0, 0.1 + 0.2, math.nan, math.inf, 123456789.123, 1e-7])) == [
        1,
        0.3,
        None,
        None,
        123456789.1,
        1e-7,
    ]


def test_no_points() -> None:
    assert len(table([], [], [], {"loss": []})) == 0
