from __future__ import annotations

import random
from importlib.util import find_spec

import pytest

from lmtrain.evaluate.nlg.ter import edits, ter


def test_cases_by_hand() -> None:
    assert edits(["a", "b", "c"], ["a", "b", "c"]) == 0
    assert edits(["c", "d", "a", "b"], ["a", "b", "c", "d"]) == 1  # one block moves
    assert edits([], ["a", "b"]) == 2
    assert edits(["x", "y", "z"], ["a"]) == 3
    assert edits(["b", "a", "d", "c"], ["a", "b", "c", "d"]) == 2


def test_least_reference_counts_and_an_empty_one_is_one() -> None:
    assert ter(["a b"], [["a b c d", "a b x"]]).score == pytest.approx(1 / 3)
    assert ter(["x y z"], [["a", ""]]).score == 1.0
    assert ter(["x y z"], [["a"]]).score == 3.0
    assert ter(["a", ""], [["a"], ["b c"]]).score == 0.5


@pytest.mark.skipif(find_spec("pyter") is None, reason="compares with pyter, where it is installed")
def test_edits_equal_pyter() -> None:
    import pyter

    draw = random.Random(7)
    for _ in range(1_500):
        letters = "abcdefghijklmnopqrst"[: draw.choice([3, 6, 20])]
        reference = [draw.choice(letters) for _ in range(draw.randint(1, 14))]
        words = [draw.choice(letters) for _ in range(draw.randint(0, 14))]
        if draw.random() < 0.5:  # the reference with some words moved
            words = reference[:]
            for _ in range(3):
                words.insert(draw.randint(0, len(words) - 1), words.pop(draw.randrange(len(words))))
        assert edits(words, reference) / len(reference) == pyter.ter(words, reference), (words, reference)


def test_edits_equal_a_plain_search() -> None:
    """The definition written out: the full table for every shift, the greatest gain, then the last in order."""
    draw = random.Random(8)
    for _ in range(400):
        letters = "abcdef"[: draw.choice([2, 4, 6])]
        reference = [draw.choice(letters) for _ in range(draw.randint(1, 8))]
        words = [draw.choice(letters) for _ in range(draw.randint(0, 8))]
        assert edits(words, reference) == _plain(words, reference), (words, reference)


def _plain(words: list[str], reference: list[str]) -> int:
    shifts = 0
    while True:
        before, options = _table(words, reference), []
        for start in range(len(words)):
            for target in range(len(reference)):
                if start == target or words[start] != reference[target]:
                    continue
                length = 1
                while words[start : start + length + 1] == reference[target : target + length + 1] and (
                    max(start + length - len(words), target + length - len(reference)) < 0
                ):
                    length += 1
                rest = words[:start] + words[start + length :]
                moved = rest[:target] + words[start : start + length] + rest[target:]
                options.append((before - _table(moved, reference), moved))
        gain, best = max(options, default=(0, words))
        if gain <= 0:
            return shifts + before
        shifts, words = shifts + 1, best


def _table(words: list[str], reference: list[str]) -> int:
    row = list(range(len(reference) + 1))
    for number, word in enumerate(words, start=1):
        above, row = row, [number]
        for place, other in enumerate(reference):
            row.append(min(row[-1] + 1, above[place + 1] + 1, above[place] + (word != other)))
    return row[-1]
