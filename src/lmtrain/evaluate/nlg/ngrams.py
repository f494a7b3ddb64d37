"""Counting n-grams, and the counts that BLEU clips by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

Ngram = tuple[str, ...]


def ngrams(words: Sequence[str], n: int) -> Counter[Ngram]:
    """How often each sequence of ``n`` words occurs."""
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def clipped_hits(words: Sequence[str], references: Iterable[Sequence[str]], n: int) -> Counter[Ngram]:
    """The n-grams of ``words`` that the references allow, with how many of each (Papineni et al., *BLEU*, ACL 2002): no
    more than the one that has most of it."""
    most: Counter[Ngram] = Counter()
    for reference in references:
        most |= ngrams(reference, n)
    return ngrams(words, n) & most


def closest_length(length: int, lengths: Iterable[int]) -> int:
    """The length nearest to ``length``; of two equally near the shorter."""
    return min(lengths, key=lambda other: (abs(other - length), other))


def bleu_rows(
    predictions: list[str], references: list[list[str]], cut: Callable[[str], list[str]], most: int
) -> np.ndarray:
    """(sentences, 2 · ``most`` + 1): hits of 1 to ``most`` words, how many n-grams there are, below 0 in a text that is
    too short for one, and the length of the closest reference. ``cut`` makes words of a text."""
    rows = []
    for prediction, texts in zip(predictions, references, strict=True):
        words, others = cut(prediction), [cut(text) for text in texts]
        hits = [clipped_hits(words, others, n).total() for n in range(1, most + 1)]
        rows.append([*hits, *(len(words) - n for n in range(most)), closest_length(len(words), map(len, others))])
    return np.array(rows, dtype=np.float64)
