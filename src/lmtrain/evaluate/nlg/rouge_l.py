"""ROUGE-L as the COCO caption scorers give it (Lin, *ROUGE*, 2004; tuetschek/e2e-metrics, pycocoevalcap/rouge)."""

from __future__ import annotations

from collections import defaultdict

from lmtrain.evaluate.nlg.statistics import Statistics, mean_of

_BETA = 1.2  # recall counts 1.44 times as much as precision


def rouge_l(predictions: list[str], references: list[list[str]]) -> Statistics:
    """Mean over sentences of the F-measure of the best precision and the best recall, each over the references.

    Texts are words with single spaces between them; an empty text is one empty word, as there.
    """
    return mean_of([_sentence(p, r) for p, r in zip(predictions, references, strict=True)])


def _sentence(prediction: str, references: list[str]) -> float:
    words = prediction.split(" ")
    precision = recall = 0.0
    for reference in references:
        other = reference.split(" ")
        common = longest_common_subsequence(words, other)
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(other))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def longest_common_subsequence(first: list[str], second: list[str]) -> int:
    """Its length, with one bit a word of ``first``: a step a word of ``second`` (Hyyrö 2004, after Allison and Dix).

    >>> longest_common_subsequence("a b c d".split(), "x b d".split())
    2
    """
    where: defaultdict[str, int] = defaultdict(int)
    for place, word in enumerate(first):
        where[word] |= 1 << place
    everything = (1 << len(first)) - 1
    open_places = everything
    for word in second:
        matched = open_places & where[word] if word in where else 0
        open_places = ((open_places + matched) | (open_places - matched)) & everything
    return len(first) - open_places.bit_count()
