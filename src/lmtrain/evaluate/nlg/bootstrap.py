"""How sure a score is, and whether two outputs differ: sentences drawn anew, thousands of times in a second.

- Intervals: the bootstrap's percentiles (Efron and Tibshirani 1993); for two outputs of the same inputs, of the
  difference under the same draws (Koehn, *Statistical significance tests for MT evaluation*, EMNLP 2004).
- p: approximate randomization (Riezler and Maxwell, 2005): how often a difference at least as large comes about when
  the two outputs are swapped at random, sentence by sentence. Two-sided.

What a whole corpus lends to a sentence (NIST's weights, CIDEr's document frequencies) stays that of the whole corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lmtrain.core.streams import stream
from lmtrain.evaluate.nlg.statistics import Statistics
from lmtrain.evaluate.nlg.tasks import Scores

_AT_ONCE = 4_000_000  # draws in memory at a time
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """First output less the second: what was measured, its 95 % interval, and ``p`` of no difference."""

    difference: float
    low: float
    high: float
    p: float


def intervals(scores: Scores, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each score that is there."""
    names = list(scores.statistics)
    figures = _resampled([scores.statistics[name] for name in names], resamples, seed)
    return {name: _middle(figures[:, column]) for column, name in enumerate(names)}


def compare(first: Scores, second: Scores, resamples: int, seed: int) -> dict[str, Difference]:
    """Each score that both outputs have, ``first`` less ``second``; both are of the same inputs in the same order."""
    found = {}
    for name, own in first.statistics.items():
        other = second.statistics.get(name)
        if other is None:
            continue
        both = _resampled([own, other], resamples, seed)
        difference = own.score - other.score
        low, high = _middle(both[:, 0] - both[:, 1])
        found[name] = Difference(difference, low, high, _p(own, other, difference, resamples, seed))
    return found


def _resampled(statistics: list[Statistics], resamples: int, seed: int) -> np.ndarray:
    """(resamples, len(statistics)): each score on sentences drawn with replacement, the same for all."""
    if not statistics:
        return np.zeros((resamples, 0))
    sentences = len(statistics[0].rows)
    parts = []
    for number, size in _chunks(resamples, sentences):
        drawn = stream(seed, "nlg bootstrap", number).integers(0, sentences, (size, sentences))
        offsets = drawn + np.arange(size)[:, None] * sentences
        times = np.bincount(offsets.ravel(), minlength=size * sentences).reshape(size, sentences).astype(np.float64)
        parts.append(np.stack([each.figure(times @ each.rows) for each in statistics], axis=1))
    return np.concatenate(parts)


def _p(own: Statistics, other: Statistics, difference: float, resamples: int, seed: int) -> float:
    sentences = len(own.rows)
    total, gap = own.rows.sum(axis=0), other.rows - own.rows
    as_large = 0
    for number, size in _chunks(resamples, sentences):
        swapped = stream(seed, "nlg randomization", number).integers(0, 2, (size, sentences)).astype(np.float64)
        moved = swapped @ gap
        shuffled = own.figure(total + moved) - own.figure(other.rows.sum(axis=0) - moved)
        # A hair of tolerance: the unswapped and the wholly swapped outputs are as large by definition.
        as_large += int((np.abs(shuffled) >= abs(difference) * (1 - 1e-9)).sum())
    return (as_large + 1) / (resamples + 1)


def _chunks(resamples: int, sentences: int) -> Iterator[tuple[int, int]]:
    size = max(1, _AT_ONCE // sentences)
    for number, start in enumerate(range(0, resamples, size)):
        yield number, min(size, resamples - start)


def _middle(figures: np.ndarray) -> tuple[float, float]:
    """The middle 95 %; draws on which the official scorer has no figure are passed over."""
    edge = (1 - _LEVEL) / 2
    low, high = np.nanquantile(figures, [edge, 1 - edge])
    return float(low), float(high)
