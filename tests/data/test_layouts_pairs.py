"""Pairs: a context and its completion in one row, every token placed or counted as dropped."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layouts import stored

from lmtrain.core.errors import UserError
from lmtrain.data.layouts import Pairs

ids_of = st.lists(st.integers(10, 999), max_size=8)
pairs_of = st.lists(st.tuples(ids_of, ids_of), min_size=1, max_size=10)
around_of = st.sampled_from([((), (), ()), ((), (), (0,)), ((), (3,), (0,)), ((1,), (3,), (2, 4))])
Around = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@given(
    pairs=pairs_of,
    around=around_of,
    length=st.integers(1, 22),
    skip=st.booleans(),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_pairs_are_what_the_description_says(
    pairs: list[tuple[list[int], list[int]]], around: Around, length: int, skip: bool, order: object
) -> None:
    prefix, between, suffix = around
    numbers = order.sample(range(len(pairs)), order.randint(1, len(pairs)))  # type: ignore[attr-defined]
    store = Pairs.from_ids([c for c, _ in pairs], [a for _, a in pairs], 100).store
    layout = Pairs(store, np.array(numbers), length, *around, on_long="skip" if skip else "truncate", pad_id=7)

    expected, left_out = [], 0
    for number in numbers:
        context, completion = pairs[number]
        head = [*prefix, *context, *between]
        row = [*head, *completion, *suffix]
        if len(row[:length]) <= len(head) or (skip and len(row) > length):
            left_out += 1
            continue
        expected.append((number, row[:length], [at >= len(head) for at in range(min(len(row), length))]))
    assert [layout[i]["input_ids"].tolist() for i in range(len(layout))] == [row for _, row, _ in expected]
    assert [layout[i]["completion_mask"].tolist() for i in range(len(layout))] == [a for *_, a in expected]
    assert layout.numbers.tolist() == [number for number, *_ in expected]
    assert layout.n_left_out == left_out
    assert layout.lengths.tolist() == [len(row) for _, row, _ in expected]
    assert layout.answer_lengths.tolist() == [sum(answer) for *_, answer in expected]
    specials = sum(sum(layout[i]["special_tokens_mask"]) for i in range(len(layout)))
    content = sum(i >= 10 for _, row, _ in expected for i in row)
    assert specials == layout.n_tokens - content, "ids below 10 are the layout's own"

    ledger = layout.ledger  # tokens in = tokens placed + dropped is checked when it is made
    assert ledger.tokens == sum(len(pairs[n][0]) + len(pairs[n][1]) for n in numbers)
    assert ledger.placed == layout.n_tokens == sum(len(row) for _, row, _ in expected)
    assert ledger.documents == len(numbers) and ledger.examples == len(expected)
    assert (layout.note is None) == (left_out == 0 and layout.n_cut == 0)


def test_a_batch_is_padded_and_marks_its_answers(tmp_path: Path) -> None:
    store = stored(tmp_path, [[5, 6], [8, 9], [], [7], [4, 4, 4, 4], [3]])
    pairs = Pairs(store, np.array([2, 0, 1]), 5, (), (1,), (0,), pad_id=99)
    batch = pairs.__getitems__([1, 0])
    assert batch.ids.tolist() == [[1, 7, 0, 99, 99], [5, 6, 1, 8, 9]]
    assert batch.answer is not None
    assert batch.answer.tolist() == [[False, True, True, False, False], [False, False, False, True, True]]
    assert batch.special.tolist() == [[True, False, True, True, True], [False, False, True, False, False]]
    assert batch.lengths.tolist() == [3, 5] and batch.index.tolist() == [1, 0]
    assert pairs.n_answer_tokens == 4
    assert pairs.n_answer_bytes == 6, "two bytes a token, the layout's own have none"
    assert pairs.n_bytes == 10


@pytest.mark.parametrize("on_long", ["truncate", "skip"])
def test_what_is_too_long_is_said(tmp_path: Path, on_long: str) -> None:
    store = stored(tmp_path, [[5], [8], [5, 5], [8, 8, 8, 8], [6, 6, 6], [7]])
    pairs = Pairs(store, np.arange(3), 3, (), (), (0,), on_long=on_long)  # type: ignore[arg-type]
    said = {
        "truncate": "1 pair of 3 longer than 3 tokens cut (4 tokens lost); 1 pair whose context takes all 3 left out",
        "skip": "2 pairs longer than 3 tokens left out",
    }
    assert pairs.note == said[on_long]
    assert len(pairs) == {"truncate": 2, "skip": 1}[on_long]


def test_stopping_at_what_is_too_long_names_the_pair(tmp_path: Path) -> None:
    store = stored(tmp_path, [[5], [8], [5, 5], [8, 8, 8, 8]])
    store.manifest["sources"] = [{"name": "a.jsonl", "documents": 2}, {"name": "b.jsonl", "documents": 2}]
    with pytest.raises(UserError, match=r"--max_seq_length: pair 1 of b\.jsonl has 6 tokens, .* at most 5 \(1 pair"):
        Pairs(store, np.arange(2), 5, on_long="error")
    assert len(Pairs(store, np.arange(2), 6, on_long="error")) == 2


def test_pairs_travel_to_a_loaders_worker(tmp_path: Path) -> None:
    on_disk = Pairs(stored(tmp_path, [[5, 6], [8, 9], [5], [7]]), np.array([1, 0]), 4, (), (), (0,))
    in_memory = Pairs.from_ids([[5, 6], [5]], [[8, 9], [7]], 4, suffix=(0,))
    for pairs in (on_disk, in_memory, on_disk.take(1)):
        again = pickle.loads(pickle.dumps(pairs))
        assert len(again) == len(pairs)
        everything = range(len(pairs))
        assert again.__getitems__(everything).ids.tolist() == pairs.__getitems__(everything).ids.tolist()
    assert len(on_disk.take(1)) == 1 and len(on_disk.take(9)) == 2
    with pytest.raises(IndexError):
        on_disk.take(1)[1]
    assert len(pickle.dumps(on_disk)) < 2000, "the store travels as its path"


def test_as_many_contexts_as_completions() -> None:
    with pytest.raises(ValueError):
        Pairs.from_ids([[1]], [[1], [2]], 4)
