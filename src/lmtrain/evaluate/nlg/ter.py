"""TER as ``pyter`` gives it, which WebNLG's GenerationEval calls: edits and shifts, divided by the reference's words.

Snover et al., *A Study of Translation Edit Rate*, AMTA 2006. Source of the details: pyter3 0.3 and
WebNLG/GenerationEval 8067849, eval.py ``ter_score``. It differs from tercom: any block may move, and of equally good
moves the one is made whose words are last in alphabetical order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from lmtrain.evaluate.nlg.statistics import Statistics, mean_of


def ter(predictions: list[str], references: list[list[str]]) -> Statistics:
    """Mean over sentences of the least TER over the references; texts are words with spaces between them.

    A reference without words counts 1, as there.
    """
    return mean_of([_least(p.split(), r) for p, r in zip(predictions, references, strict=True)])


def _least(words: list[str], references: list[str]) -> float:
    """The least over the references; one is passed over where its lower bound is no better than what was found."""
    cut = [reference.split() for reference in dict.fromkeys(references)]
    best = 1.0 if not all(cut) else float("inf")
    bounds = sorted((_at_least(words, other) / len(other), other) for other in cut if other)
    for bound, other in bounds:
        if bound < best:
            best = min(best, edits(words, other) / len(other))
    return best


def _at_least(words: list[str], reference: list[str]) -> int:
    """Edits that no order of the words can save."""
    return max(len(words), len(reference)) - (Counter(words) & Counter(reference)).total()


def edits(words: list[str], reference: list[str]) -> int:
    """Shifts and word edits from ``words`` to ``reference``: the best shift first, as long as one helps.

    >>> edits("c d a b".split(), "a b c d".split())
    1
    """
    to_reference = _Distance(reference)
    floor = _at_least(words, reference)
    shifts, distance = 0, to_reference(words)
    while distance > floor:
        best: tuple[int, list[str]] | None = None
        to_reference.start_from(words)
        for shifted, same in _shifted(words, reference):
            less = to_reference.of_shifted(shifted, same)
            if best is None or (-less, shifted) > (-best[0], best[1]):
                best = (less, shifted)
        if best is None or best[0] >= distance:
            break
        shifts += 1
        distance, words = best
    return shifts + distance


def _shifted(words: list[str], reference: list[str]) -> Iterator[tuple[list[str], int]]:
    """Every move of a block of ``words`` to the place where ``reference`` has it, and how many first words stay.

    From each pair of places with the same word the block is as long as it can be. A result comes once.
    """
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(reference):
        places[word].append(place)
    seen: set[tuple[str, ...]] = set()
    for start, word in enumerate(words):
        for target in places.get(word, ()):
            if start == target:
                continue
            length = 1
            while (
                start + length < len(words)
                and target + length < len(reference)
                and words[start + length] == reference[target + length]
            ):
                length += 1
            rest = words[:start] + words[start + length :]
            shifted = [*rest[:target], *words[start : start + length], *rest[target:]]
            key = tuple(shifted)
            if key not in seen:
                seen.add(key)
                yield shifted, min(start, target)


class _Distance:
    """Levenshtein distance to one reference, a column of the table in two integers (Hyyrö 2003, after Myers 1999).

    The columns after each word of the last start are kept: a shifted text shares its first words with it.
    """

    def __init__(self, reference: list[str]) -> None:
        self.last = 1 << (len(reference) - 1)
        self.full = (1 << len(reference)) - 1
        self.length = len(reference)
        self.where: dict[str, int] = {}
        for place, word in enumerate(reference):
            self.where[word] = self.where.get(word, 0) | 1 << place
        self.columns: list[tuple[int, int, int]] = []

    def __call__(self, words: list[str]) -> int:
        return self._go_on((self.full, 0, self.length), words)

    def start_from(self, words: list[str]) -> None:
        self.columns = [(self.full, 0, self.length)]
        self._go_on(self.columns[0], words, self.columns)

    def of_shifted(self, words: list[str], same: int) -> int:
        """Distance of ``words``, of which the first ``same`` are those of the start."""
        return self._go_on(self.columns[same], words[same:])

    def _go_on(
        self, column: tuple[int, int, int], words: list[str], keep: list[tuple[int, int, int]] | None = None
    ) -> int:
        up, down, distance = column  # places where the column rises by one, where it falls, and its last value
        for word in words:
            equal = self.where.get(word, 0)
            same_or_down = equal | down
            diagonal = (((equal & up) + up) ^ up) | equal
            right_up = down | ~(diagonal | up) & self.full
            right_down = up & diagonal
            if right_up & self.last:
                distance += 1
            elif right_down & self.last:
                distance -= 1
            right_up = (right_up << 1 | 1) & self.full
            right_down = right_down << 1 & self.full
            up = right_down | ~(same_or_down | right_up) & self.full
            down = right_up & same_or_down
            if keep is not None:
                keep.append((up, down, distance))
        return distance
