"""BLEU and NIST as the E2E challenge's scorer gives them: NIST's mteval-v13a in its Python port ``pymteval``.

Source of the definitions: tuetschek/e2e-metrics 1b9c4d8, metrics/pymteval.py (``measure_scores.py -p``), after
mteval-v13a.pl. Both are without regard to case. Two habits of it that other BLEUs do not have: a sentence of ``k``
words counts ``k - n + 1`` n-grams even where that is negative, and an empty text is one empty word.
"""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np

from lmtrain.evaluate.nlg.ngrams import Ngram, bleu_rows, clipped_hits, ngrams
from lmtrain.evaluate.nlg.statistics import Statistics

_ENTITIES = [("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")]
_SIGNS = re.compile(r"([{-~\[-` -&(-+:-@/])")  # ASCII signs except apostrophe, comma, hyphen and full stop
_POINT_AFTER = re.compile(r"([^0-9])([.,])")
_POINT_BEFORE = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")


def set_apart(text: str) -> str:
    """A text with spaces around its signs, by the rules of mteval-v13a for western languages.

    >>> set_apart("It's £20-25, isn't it (3.5/5)?").split()
    ["It's", '£20', '-', '25', ',', "isn't", 'it', '(', '3.5', '/', '5', ')', '?']
    """
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = _SIGNS.sub(r" \1 ", f" {text} ")
    text = _POINT_AFTER.sub(r"\1 \2 ", text)
    text = _POINT_BEFORE.sub(r" \1 \2", text)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text)


def _words(text: str) -> list[str]:
    return re.sub(r"\s+", " ", set_apart(text)).strip().lower().split(" ")


_NGRAMS = 4
_TINY, _SMALL = 1e-15, 1e-9  # pymteval's stand-ins for no hits and no n-grams


def bleu(predictions: list[str], references: list[list[str]]) -> Statistics:
    """BLEU (0 to 1) of a corpus, up to 4-grams; the reference length is that of the closest one."""
    return Statistics(bleu_rows(predictions, references, _words, _NGRAMS), _bleu)


def _bleu(sums: np.ndarray) -> np.ndarray:
    hits = np.maximum(sums[..., :_NGRAMS], _TINY)
    counts = np.maximum(sums[..., _NGRAMS : 2 * _NGRAMS], _SMALL)
    length, reference = sums[..., _NGRAMS], sums[..., -1]
    brevity = np.minimum(0.0, 1.0 - reference / np.where(length == 0, 1e-5, length))
    bleu: np.ndarray = np.exp(brevity) * np.exp(np.log(hits / counts).mean(axis=-1))
    return bleu


_NIST_NGRAMS = 5
_BETA = -math.log(0.5) / math.log(1.5) ** 2  # a prediction of 2/3 the length costs half the score


def nist(predictions: list[str], references: list[list[str]]) -> Statistics:
    """NIST of a corpus, up to 5-grams (Doddington, *Automatic evaluation of MT quality*, HLT 2002).

    A hit weighs log2(count of its first n-1 words / its count) in all references; when sentences are resampled the
    weights stay those of the whole corpus.
    """
    hits_of: list[Counter[Ngram]] = []
    sums = []
    seen: Counter[Ngram] = Counter()  # of all lengths; the empty n-gram counts the words
    for prediction, texts in zip(predictions, references, strict=True):
        words, others = _words(prediction), [_words(text) for text in texts]
        hits: Counter[Ngram] = Counter()
        for n in range(1, _NIST_NGRAMS + 1):
            hits.update(clipped_hits(words, others, n))
            for other in others:
                seen.update(ngrams(other, n))
        total = sum(map(len, others))
        seen[()] += total
        hits_of.append(hits)
        sums.append([*(len(words) - n for n in range(_NIST_NGRAMS)), total / len(others)])
    rows = []
    for hits, others_sums in zip(hits_of, sums, strict=True):
        information = [0.0] * _NIST_NGRAMS
        for ngram, count in hits.items():
            information[len(ngram) - 1] += math.log2(seen[ngram[:-1]] / seen[ngram]) * count
        rows.append(information + others_sums)
    return Statistics(np.array(rows, dtype=np.float64), _nist)


def _nist(sums: np.ndarray) -> np.ndarray:
    information, counts = sums[..., :_NIST_NGRAMS], sums[..., _NIST_NGRAMS:-1]
    defined = (counts != 0).all(axis=-1)
    each = information / np.where(counts == 0, np.nan, counts)
    ratio = counts[..., 0] / sums[..., -1]
    penalty = np.exp(-_BETA * np.log(np.clip(ratio, 1e-300, 1.0)) ** 2)
    return np.where(defined, penalty * each.sum(axis=-1), np.nan)
