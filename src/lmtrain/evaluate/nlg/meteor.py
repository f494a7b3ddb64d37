"""METEOR 1.5 (Denkowski and Lavie, *Meteor Universal*, WMT 2014) through its jar.

The jar aligns each prediction with its references and answers 23 numbers for the best; the score of many sentences
follows from their sums by the paper's formulas, which are written out here (equal to the jar's own, see the tests).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmtrain.evaluate.nlg import java
from lmtrain.evaluate.nlg.statistics import NotComputableError, Statistics

# The jar's parameters for English.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGES = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
_CHUNKS = 20  # the column of the number of unbroken pieces
_SEPARATOR = "|||"


def meteor(
    predictions: list[str],
    references: list[list[str]],
    *,
    by_jar: Callable[[list[str]], list[str]] | None = None,
) -> Statistics:
    """METEOR (0 to 1) of a corpus, the best reference for each sentence."""
    for texts in references:
        if any(_SEPARATOR in text for text in texts):
            raise NotComputableError(f"a reference holds {_SEPARATOR}, which separates texts in METEOR's protocol")
    requests = [
        f" {_SEPARATOR} ".join(["SCORE", *texts, prediction])
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    answers = (by_jar or java.meteor_statistics)(requests)
    try:
        rows = np.array([[float(number) for number in answer.split()] for answer in answers])
    except ValueError as error:
        raise NotComputableError(f"the METEOR jar's answer cannot be read: {error}") from error
    rows[_perfect(rows), _CHUNKS] = 0  # as the jar adds up: a text equal to its reference breaks nowhere
    return Statistics(rows, _meteor)


def _perfect(sums: np.ndarray) -> np.ndarray:
    """Where every word of both texts is matched in one piece."""
    found = _matches(sums).sum(axis=(-3, -2))
    perfect: np.ndarray = (found == sums[..., :2]).all(axis=-1) & (sums[..., _CHUNKS] == 1)
    return perfect


def _matches(sums: np.ndarray) -> np.ndarray:
    """(..., 4, 2, 2): stage, content or function words, text or reference."""
    return sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)


def _meteor(sums: np.ndarray) -> np.ndarray:
    """The score from sums of (lengths, function words, matches by stage, chunks, matched words), text and reference."""
    content = _STAGES * _DELTA
    function = _STAGES * (1 - _DELTA)
    matches = _matches(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = []
        for side in (0, 1):
            weighed = (matches[..., 0, side] * content + matches[..., 1, side] * function).sum(axis=-1)
            length, small = sums[..., side], sums[..., 2 + side]
            shares.append(weighed / (_DELTA * (length - small) + (1 - _DELTA) * small))
        precision, recall = shares
        mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        fragments = sums[..., _CHUNKS] / ((sums[..., 21] + sums[..., 22]) / 2)
        score = mean * (1 - _GAMMA * fragments**_BETA)
    return np.maximum(np.nan_to_num(score, nan=0.0), 0.0)
