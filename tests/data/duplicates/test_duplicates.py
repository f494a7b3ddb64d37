"""Shingles, signatures, the table and the texts kept, against what Python's own sets and dicts say."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtrain.core.errors import UserError
from lmtrain.data.duplicates.bands import ELEMENTS, RECALL, Bands, likeness, signatures
from lmtrain.data.duplicates.kept import Kept
from lmtrain.data.duplicates.marks import Marks, marks_of
from lmtrain.data.duplicates.shingles import WORDS, jaccard, shingles
from lmtrain.data.duplicates.table import Table

WORD = re.compile(r"[a-z0-9_\u0080-\u07ff]+|[\u0800-\U0010ffff]", re.ASCII)


def by_hand(text: str) -> set[tuple[str, ...]]:
    """Five words and the next five …, where a character beyond U+07FF is a word."""
    small = "".join(letter.lower() if letter.isascii() else letter for letter in text)
    words = WORD.findall(small)
    if len(words) < WORDS:
        return {tuple(words)} if words else set()
    return {tuple(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)}


TEXTS = st.text(alphabet="aAbB0_ \n.,é日本😀ж", max_size=60)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_shingles_are_runs_of_five_words(texts: list[str]) -> None:
    found = list(shingles([text.encode() for text in texts]))
    expected = [by_hand(text) for text in texts]
    assert [len(values) for values in found] == [len(values) for values in expected]
    for values in found:
        assert (values[1:] > values[:-1]).all(), "sorted, each once"
    for one, by_one in zip(found, expected, strict=True):
        for other, by_other in zip(found, expected, strict=True):
            union = len(by_one | by_other)
            assert jaccard(one, other) == pytest.approx(len(by_one & by_other) / union if union else 0.0)


def test_shingles_of_a_text_do_not_depend_on_the_others_or_on_blocks() -> None:
    draw = random.Random(0)
    words = ["alpha", "beta", "Gamma", "日本語", "délta"]
    long = " ".join(draw.choices(words, k=60_000))
    alone = next(shingles([long.encode()]))
    among = list(shingles([b"before it", long.encode(), b"behind it"]))[1]
    assert len(long.encode()) > 1 << 17 and (alone == among).all()
    assert len(alone) == len(by_hand(long))


def test_signatures_estimate_the_similarity() -> None:
    pytest.importorskip("rensa")
    draw = np.random.default_rng(0)
    errors = []
    for number in range(200):
        shared = number / 200
        common = draw.integers(1, 1 << 63, round(1000 * shared), dtype=np.uint64)
        one, other = (np.unique(np.append(common, draw.integers(1, 1 << 63, 1000 - len(common), dtype=np.uint64)))
                      for _ in range(2))  # fmt: skip
        errors.append(likeness(one, other) - jaccard(one, other))
    assert abs(np.mean(errors)) < 0.01 and np.std(errors) < 1.5 * np.sqrt(0.25 / ELEMENTS)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_bring_together_what_is_alike(threshold: float) -> None:
    pytest.importorskip("rensa")
    bands = Bands.for_threshold(threshold)
    assert bands.chance(threshold) >= RECALL and bands.count * bands.rows <= ELEMENTS
    draw = np.random.default_rng(1)
    met, unlike = 0, 0
    for _ in range(200):
        common = draw.integers(1, 1 << 63, 2000, dtype=np.uint64)
        rest = round(2000 * (1 - threshold) / (2 * threshold))  # of each, so that the similarity is the threshold
        one, other, third = (np.unique(np.append(common, draw.integers(1, 1 << 63, rest, dtype=np.uint64)))
                             for _ in range(3))  # fmt: skip
        third = draw.integers(1, 1 << 63, 2000, dtype=np.uint64)
        keys = bands.keys(signatures([one, other, np.sort(third)]))
        met += bool((keys[0] == keys[1]).any())
        unlike += bool((keys[0] == keys[2]).any())
    assert met >= 200 * (RECALL - 0.05) and unlike == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2**64 - 1) | st.integers(1, 9), st.integers(0, 2**32 - 1)), max_size=200))
def test_the_table_is_a_dict_of_lists(pairs: list[tuple[int, int]]) -> None:
    table, expected = Table(slots=4), {}
    for key, value in pairs:
        table.add(key, value)
        expected.setdefault(key, []).append(value)
    assert len(table) == len(pairs)
    assert all(table.values(key) == values for key, values in expected.items())
    assert table.values(12345) == expected.get(12345, [])


def test_a_table_takes_few_bytes() -> None:
    table = Table()
    for key in range(1, 100_001):
        table.add(key, key)
    assert 12 * 100_000 < table.bytes <= 32 * 100_000


def test_equal_is_what_has_all_128_bits_of_the_hash(tmp_path: Path) -> None:
    marks = Marks(np.array([[7, 1], [7, 2], [7, 1]], dtype=np.uint64))
    with Kept(tmp_path) as kept:
        kept.add(marks, 0)
        assert kept.find(marks, 1) is None
        found = kept.find(marks, 2)
        assert found is not None and (found.number, found.equal) == (0, True)


def test_kept_texts_are_found_again_after_reopening(tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    draw = random.Random(2)
    texts = [" ".join(f"w{draw.randrange(10**6)}" for _ in range(300)) for _ in range(60)]
    bands = Bands.for_threshold(0.8)
    marks = marks_of(texts, bands)
    with Kept(tmp_path, bands=bands, threshold=0.8) as kept:
        for place in range(50):
            assert kept.find(marks, place) is None
            kept.add(marks, place)
        kept.flush()
    with Kept(tmp_path, count=40, bands=bands, threshold=0.8) as kept:  # the last ten belong to what was not finished
        assert [found.number if (found := kept.find(marks, place)) else None for place in range(50)] == [
            *range(40), *[None] * 10,
        ]  # fmt: skip
        nearly = marks_of([text.replace("w1", "v1", 3) for text in texts[:40]], bands)
        found = [kept.find(nearly, place) for place in range(40)]
        assert all(each and each.number == place for place, each in enumerate(found))
        assert all(each and 0.8 <= each.jaccard <= 1 for each in found)
        kept.add(marks, 41)
        assert kept.find(marks, 41).number == 40  # type: ignore[union-attr]
    for name in ("digests", "bands", "ends", "shingles"):
        with pytest.raises(UserError, match=rf"{name}\.bin has lost what was written"):
            file = tmp_path / f"{name}.bin"
            whole = file.read_bytes()
            file.write_bytes(whole[:-8])
            try:
                Kept(tmp_path, count=41, bands=bands, threshold=0.8)
            finally:
                file.write_bytes(whole)
