"""A score as sums over sentences and one division at the end, so that resampling costs a matrix product.

``rows`` has one line a sentence; ``figure`` takes sums of rows, of shape (..., columns), to scores, of shape (...).
A score that the official program cannot give (it divides by zero) is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Figure = Callable[[np.ndarray], np.ndarray]


class NotComputableError(Exception):
    """The official figure cannot be had here, for the reason in the text (a sentence without its full stop)."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """``rows`` (sentences, columns) float64 and the ``figure`` of their sums."""

    rows: np.ndarray
    figure: Figure

    @property
    def score(self) -> float:
        """The score of all sentences."""
        return float(self.figure(self.rows.sum(axis=0)))


def mean_of(scores: list[float]) -> Statistics:
    """Statistics of a score that is the mean over the sentences."""
    return Statistics(np.array([[score, 1.0] for score in scores]), _mean)


def _mean(sums: np.ndarray) -> np.ndarray:
    mean: np.ndarray = sums[..., 0] / sums[..., 1]
    return mean
