"""BLEU as the ``multi-bleu-detok.perl`` in WebNLG's GenerationEval gives it.

Source of the definition: WebNLG/GenerationEval 8067849, metrics/multi-bleu-detok.perl, an early version of the one in
Moses: it reads bytes, so that only ASCII spaces part words, and takes line breaks and nothing else off its lines.
With regard to case; text is cut as by mteval-v13a; no smoothing.
"""

from __future__ import annotations

import re

import numpy as np

from lmtrain.evaluate.nlg.mteval import set_apart
from lmtrain.evaluate.nlg.ngrams import bleu_rows
from lmtrain.evaluate.nlg.statistics import Statistics

_NGRAMS = 4
_SPACES = re.compile("[ \t\n\r\f\v]+")  # what \s is to Perl in bytes


def _words(text: str) -> list[str]:
    return [word for word in _SPACES.split(set_apart(text)) if word]


def bleu(predictions: list[str], references: list[list[str]]) -> Statistics:
    """BLEU (0 to 100) of a corpus, up to 4-grams, with the closest reference's length.

    An empty reference is a reference of no words. Without a word in the predictions or in the references the script
    fails: NaN.
    """
    return Statistics(np.maximum(bleu_rows(predictions, references, _words, _NGRAMS), 0), _bleu)


def _bleu(sums: np.ndarray) -> np.ndarray:
    hits, counts = sums[..., :_NGRAMS], sums[..., _NGRAMS : 2 * _NGRAMS]
    length, reference = counts[..., 0], sums[..., -1]
    precisions = hits / np.maximum(counts, 1)
    some = (precisions > 0).all(axis=-1)
    logs = np.log(np.where(precisions > 0, precisions, 1.0)).mean(axis=-1)
    brevity = np.minimum(0.0, 1.0 - reference / np.maximum(length, 1))
    score = np.where(some, 100 * np.exp(brevity + logs), 0.0)
    return np.where((length > 0) & (reference > 0), score, np.nan)
