"""Counting n-grams, and the counts that BLEU clips by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

Ngram = tuple[str, ...]


def ngrams(words: Sequence[str], n: int) -> Counter[Ngram]:
    """How often each sequence of ``n`` words occurs."""
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def most_in_any(references: Iterable[Sequence[str]], n: int) -> Counter[Ngram]:
    """For each n-gram the most that any one of the references has of it: what a hit is clipped by."""
    most: Counter[Ngram] = Counter()
    for words in references:
        most |= ngrams(words, n)
    return most


def clipped_hits(words: Sequence[str], references: Iterable[Sequence[str]], n: int) -> Counter[Ngram]:
    """The n-grams of ``words`` that the references allow, with how many of each (Papineni et al., *BLEU*, ACL 2002)."""
    return ngrams(words, n) & most_in_any(references, n)


def closest_length(length: int, lengths: Iterable[int]) -> int:
    """The length nearest to ``length``; of two equally near the shorter."""
    return min(lengths, key=lambda other: (abs(other - length), other))
