from __future__ import annotations

import math

import numpy as np
import pytest
from evaluate_nlg import FACTS, apart, templates

from lmtrain.evaluate.nlg import compare, intervals, java, score
from lmtrain.evaluate.nlg.bootstrap import _p
from lmtrain.evaluate.nlg.statistics import mean_of
from lmtrain.evaluate.nlg.tasks import Scores


@pytest.fixture(autouse=True)
def _without_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jar takes ten seconds to read its tables, and nothing here is about it."""
    monkeypatch.setattr(java, "_package", lambda: None)


def _mean(values: list[float]) -> Scores:
    return Scores("webnlg", {"TER": float(np.mean(values))}, {}, {"TER": mean_of(values)})


def test_resampling_gives_the_figures_of_the_drawn_sentences() -> None:
    """One draw by hand: the sums of chosen rows score as a corpus of just those sentences does."""
    predictions, references = apart(FACTS)
    scores = score("webnlg", predictions, references)
    chosen = [3, 3, 7, 1, 9, 0]
    drawn = score("webnlg", [predictions[i] for i in chosen], [references[i] for i in chosen])
    for name in ("BLEU", "TER"):
        statistics = scores.statistics[name]
        assert float(statistics.figure(statistics.rows[chosen].sum(axis=0))) == pytest.approx(drawn.values[name])


def test_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = list(np.random.default_rng(0).normal(0.5, 0.1, 400))
    low, high = intervals(_mean(values), 4000, seed=1)["TER"]
    half = 1.96 * float(np.std(values)) / math.sqrt(400)
    assert (low + high) / 2 == pytest.approx(float(np.mean(values)), abs=half / 8)
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def test_the_seed_decides_and_nothing_else() -> None:
    scores = score("webnlg", *apart(templates(30, seed=6)))
    assert intervals(scores, 200, seed=3) == intervals(scores, 200, seed=3)
    assert intervals(scores, 200, seed=3) != intervals(scores, 200, seed=4)


def test_an_output_does_not_differ_from_itself() -> None:
    scores = score("webnlg", *apart(templates(30, seed=6)))
    for found in compare(scores, scores, 300, seed=1).values():
        assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_large_difference_is_sure_and_a_small_one_is_not() -> None:
    draw = np.random.default_rng(2)
    base = draw.normal(0.5, 0.1, 200)
    clear = compare(_mean(list(base)), _mean(list(base + 0.1)), 999, seed=1)["TER"]
    assert clear.p == 1 / 1000 and clear.low <= clear.difference <= clear.high < 0
    unclear = compare(_mean(list(base)), _mean(list(draw.normal(0.5, 0.1, 200))), 999, seed=1)["TER"]
    assert unclear.p > 0.05 and unclear.low < 0 < unclear.high


def test_p_equals_the_exact_one_over_all_swaps() -> None:
    """Six sentences have 64 ways of swapping; p is the share of those with so large a difference.

    With 40,000 draws the share is known to 0.0025 (one sigma): a false alarm at 4 sigma is 1 in 15,000, and the seed
    is fixed.
    """
    first, second = [0.1, 0.5, 0.3, 0.9, 0.4, 0.2], [0.3, 0.4, 0.6, 0.8, 0.9, 0.5]
    gaps = np.array(first) - np.array(second)
    signs = np.array([[1 - 2 * (way >> bit & 1) for bit in range(6)] for way in range(64)])
    exact = float((np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12).mean())
    found = _p(mean_of(first), mean_of(second), float(gaps.mean()), 40_000, 1)
    assert found == pytest.approx(exact, abs=0.01)
