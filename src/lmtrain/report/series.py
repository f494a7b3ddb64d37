"""Curves small enough to draw, and smooth enough to read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmtrain.report.log import Column

MOST: Final = 1500
"""Points of a curve: about as many as a wide screen has pixels for a plot."""
SMOOTHING: Final = 0.005
"""Of the whole width: how far to either side the smoothed line looks unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class Band:
    """Of each stretch of a curve the mean, the least and the greatest value; nan where it has no number."""

    mean: Column
    low: Column
    high: Column


@dataclass(frozen=True, slots=True)
class Table:
    """Curves over the same steps, as stretches of neighbouring points.

    ``first`` and ``last`` are the steps that a stretch spans; ``step``, ``tokens`` and ``seconds`` where it stands on
    each axis. ``is_whole``: every stretch is a single point.
    """

    first: Column
    last: Column
    step: Column
    tokens: Column
    seconds: Column
    curves: dict[str, Band]
    is_whole: bool

    def __len__(self) -> int:
        return len(self.step)

    def as_json(self) -> dict[str, Any]:
        """For the page: ``low`` and ``high`` only where they say more than ``mean``."""
        value: dict[str, Any] = {name: plain(getattr(self, name)) for name in ("step", "tokens", "seconds")}
        if not self.is_whole:
            value |= {"first": plain(self.first), "last": plain(self.last)}
        value["curves"] = {
            name: {"mean": plain(band.mean)}
            | ({} if self.is_whole else {"low": plain(band.low), "high": plain(band.high)})
            for name, band in self.curves.items()
        }
        return value


def table(
    step: ArrayLike,
    seconds: ArrayLike,
    tokens: ArrayLike,
    curves: Mapping[str, ArrayLike],
    most: int = MOST,
) -> Table:
    """At most ``most`` stretches, with as many points each; curves without a single number are left out.

    Keeping each stretch's extremes keeps every spike visible, as M4 does (Jugel et al., "M4: A Visualization-Oriented
    Time Series Data Aggregation", VLDB 2014); its mean is kept beside them, because a line through extremes, or through
    the points that largest-triangle-three-buckets picks (Steinarsson, 2013), cannot be smoothed without a bias.
    """
    steps = np.asarray(step, np.float64)
    count = len(steps)
    starts = np.arange(count) if count <= most else np.unique(np.linspace(0, count, most, endpoint=False).astype(int))
    ends = np.append(starts[1:], count)
    bands = {}
    for name, values in curves.items():
        column = np.asarray(values, np.float64)
        column = np.where(np.isfinite(column), column, np.nan)
        if np.isfinite(column).any():
            bands[name] = _band(column, starts, ends)
    if not count:
        empty = np.empty(0)
        return Table(empty, empty, empty, empty, empty, {}, True)
    places = {
        name: _band(np.asarray(axis, np.float64), starts, ends).mean
        for name, axis in (("step", step), ("tokens", tokens), ("seconds", seconds))
    }
    return Table(steps[starts], steps[ends - 1], curves=bands, is_whole=count <= most, **places)


def _band(column: Column, starts: NDArray[np.intp], ends: NDArray[np.intp]) -> Band:
    if len(starts) == len(column):
        return Band(column, column, column)
    known = np.isfinite(column)
    counts = np.add.reduceat(known, starts, dtype=np.int64)
    sums = np.add.reduceat(np.where(known, column, 0.0), starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(counts > 0, sums / counts, np.nan)
    low = np.minimum.reduceat(np.where(known, column, np.inf), starts)
    high = np.maximum.reduceat(np.where(known, column, -np.inf), starts)
    return Band(mean, np.where(counts > 0, low, np.nan), np.where(counts > 0, high, np.nan))


def smoothed(x: Column, y: Column, span: float) -> Column:
    """A moving average over ``x``: a value ``span`` away, on either side, weighs 1/e of the one here.

    It lags behind neither side and does not depend on how densely a curve was logged, as the averages over so many
    lines do. ``y`` has no nan. The page's script does the same.
    """
    if span <= 0:
        return y
    above, below = y.astype(np.float64), np.ones(len(y))
    for order in (range(len(y)), range(len(y) - 1, -1, -1)):
        total, weight, before = 0.0, 0.0, math.nan
        for at in order:
            fade = 0.0 if math.isnan(before) else math.exp(-abs(x[at] - before) / span)
            above[at] += total * fade
            below[at] += weight * fade
            total, weight, before = total * fade + y[at], weight * fade + 1.0, x[at]
    return above / below


def plain(values: Column) -> list[float | int | None]:
    """Numbers as short as JSON can have them; None for what is none."""
    return [_short(value) for value in values.tolist()]


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    if value == (whole := int(value)) and abs(value) < 1e15:
        return whole
    return float(f"{value:.6g}") if abs(value) < 1e6 else round(value, 1)
