"""CIDEr as the COCO caption scorers give it: CIDEr-D of Vedantam et al., *CIDEr*, CVPR 2015.

Source of the details: tuetschek/e2e-metrics, pycocoevalcap/cider/cider_scorer.py: n-grams up to 4, sigma 6, times 10;
document frequencies from the references at hand; a text's length is its number of bigrams.
"""

from __future__ import annotations

import math
from collections import Counter

from lmtrain.evaluate.nlg.ngrams import Ngram, ngrams
from lmtrain.evaluate.nlg.statistics import Statistics, mean_of

_NGRAMS = 4
_SIGMA = 6.0


def cider(predictions: list[str], references: list[list[str]]) -> Statistics:
    """Mean over sentences; texts are words with spaces between them.

    When sentences are resampled the document frequencies stay those of the whole corpus.
    """
    counted = [[_counts(text) for text in texts] for texts in references]
    documents: Counter[Ngram] = Counter()
    for texts in counted:
        documents.update({ngram for counts in texts for n in counts for ngram in n})
    weight = {ngram: math.log(len(references)) - math.log(count) for ngram, count in documents.items()}
    unseen = math.log(len(references))
    scores = []
    for prediction, texts in zip(predictions, counted, strict=True):
        own = _Vector(_counts(prediction), weight, unseen)
        total = sum(_similarity(own, _Vector(counts, weight, unseen)) for counts in texts)
        scores.append(10 * total / _NGRAMS / len(texts))
    return mean_of(scores)


def _counts(text: str) -> list[Counter[Ngram]]:
    words = text.split()
    return [ngrams(words, n) for n in range(1, _NGRAMS + 1)]


class _Vector:
    """Counts times inverse document frequency, their lengths, and the number of bigrams."""

    def __init__(self, counts: list[Counter[Ngram]], weight: dict[Ngram, float], unseen: float) -> None:
        self.values = [{ngram: count * weight.get(ngram, unseen) for ngram, count in n.items()} for n in counts]
        self.norms = [math.sqrt(sum(value * value for value in n.values())) for n in self.values]
        self.bigrams = counts[1].total()


def _similarity(own: _Vector, other: _Vector) -> float:
    """Sum over n of the clipped cosines, less for texts of different lengths."""
    total = 0.0
    for mine, theirs, norm, other_norm in zip(own.values, other.values, own.norms, other.norms, strict=True):
        product = sum(min(value, theirs[ngram]) * theirs[ngram] for ngram, value in mine.items() if ngram in theirs)
        total += product / (norm * other_norm) if norm and other_norm else product
    return total * math.exp(-((own.bigrams - other.bigrams) ** 2) / (2 * _SIGMA**2))
