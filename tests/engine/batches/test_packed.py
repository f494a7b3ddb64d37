"""Packed batches: the same tokens, labels and masks in other places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tiny
from lmtrain.core.types import Examples
from lmtrain.engine.batches.collate import Collate, EpochExamples, Rows, rows_of
from lmtrain.engine.batches.packed import Packing, restarted
from lmtrain.objectives import IGNORED, Causal, Masked, Objective

WIDE = Packing(break_even=1e9, alignment=8)  # attention costs nothing: few, full rows


def masked() -> Masked:
    return Masked(3, tiny.VOCABULARY, special_ids=(0, 1, 2, 3))


def rows_in(data: list[list[int]], epoch: int = 0) -> Rows:
    return EpochExamples(tiny.MemoryLayout(data), epoch=epoch).__getitems__(range(len(data)))


Pairs = list[tuple[list[int], list[int]]]  # sorted: two examples may be alike once they are masked


def unpacked(batch: dict[str, Tensor]) -> Pairs:
    """Each segment's ids, with its labels; by what the batch says, not by how it was made."""
    found = []
    for row in range(len(batch["segments"])):
        for segment in range(1, int(batch["segments"][row].max()) + 1):
            here = batch["segments"][row] == segment
            assert batch["position_ids"][row][here].tolist() == list(range(int(here.sum())))
            found.append((batch["input_ids"][row][here].tolist(), batch["labels"][row][here].tolist()))
    return sorted(found)


def padded(batch: dict[str, Tensor], lengths: np.ndarray) -> Pairs:
    rows = zip(batch["input_ids"].tolist(), batch["labels"].tolist(), lengths.tolist(), strict=True)
    return sorted((ids[:n], labels[:n]) for ids, labels, n in rows)


@given(
    data=st.lists(st.lists(st.integers(5, 66), min_size=1, max_size=30), min_size=2, max_size=12, unique_by=tuple),
    causal=st.booleans(),
    break_even=st.sampled_from([10.0, 300.0, 1e9]),
)
@settings(deadline=None)
def test_every_example_keeps_its_tokens_masks_and_labels(
    data: list[list[int]], causal: bool, break_even: float
) -> None:
    objective: Objective = Causal() if causal else masked()
    rows = rows_in(data)
    plain = Collate(objective)(rows)
    batch = Collate(objective, packing=Packing(break_even))(rows)
    assert objective.count(batch["labels"]) == objective.count(plain["labels"])
    if "segments" not in batch:
        assert all(torch.equal(batch[name], plain[name]) for name in plain)
        return
    assert int(batch["segments"].ne(0).sum()) == sum(map(len, data))
    assert "attention_mask" not in batch and len({value.shape for value in batch.values()}) == 1
    expected = padded(plain, rows.examples.lengths)
    if causal:  # an example's first token is predicted from nothing
        expected = sorted((ids, [IGNORED, *labels[1:]]) for ids, labels in expected)
    assert unpacked(batch) == expected
    padding = batch["segments"] == 0
    assert (batch["labels"][padding] == IGNORED).all() and (batch["position_ids"][padding] == 0).all()


def test_a_batch_as_drawn() -> None:
    batch = Collate(Causal(), pad_id=9, packing=WIDE)(rows_in([[7, 8, 6, 3], [5, 4], [2]]))
    assert batch["input_ids"].tolist() == [[7, 8, 6, 3, 5, 4, 2, 9]]
    assert batch["labels"].tolist() == [[IGNORED, 8, 6, 3, IGNORED, 4, IGNORED, IGNORED]]
    assert batch["segments"].tolist() == [[1, 1, 1, 1, 2, 2, 3, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 0, 0]]


def test_masks_do_not_depend_on_the_company_of_an_example() -> None:
    data = tiny.rows(12, shortest=3)
    examples = EpochExamples(tiny.MemoryLayout(data), epoch=4)
    collate = Collate(masked(), packing=WIDE)
    together = unpacked(collate(examples.__getitems__(range(12))))
    halves = [unpacked(collate(examples.__getitems__(part))) for part in (range(1, 12, 2), range(0, 12, 2))]
    assert together == sorted(halves[0] + halves[1])


def test_labels_of_the_data_set_are_packed_too() -> None:
    items = [
        {"input_ids": [5, 6, 7, 4, 2, 3], "labels": [IGNORED, 6, 7, 4, IGNORED, 3]},
        {"input_ids": [8, 9], "labels": [8, 9]},
    ]
    batch = Collate(Causal(), packing=WIDE)(rows_of(items, np.arange(2), 0, 0))
    expected = [[IGNORED, 6, 7, 4, IGNORED, 3, IGNORED, 9]]
    assert batch["labels"].tolist() == expected, "the 8 would be predicted from the 3"


def test_an_example_longer_than_all_others_together() -> None:
    data = [[5] * 40, [6, 7], [8], [9, 10, 11]]
    batch = Collate(Causal(), packing=Packing(50))(rows_in(data))
    assert batch["input_ids"].shape == (1, 46)
    assert [ids for ids, _ in unpacked(batch)] == sorted(data)


@pytest.mark.parametrize("data", [[[5, 6, 7]], [[5, 6, 7], [8, 9, 5], [6, 6, 6]]])
def test_where_nothing_is_gained_the_batch_stays_as_it_is(data: list[list[int]]) -> None:
    packed = Collate(Causal(), packing=Packing(1e-3))(rows_in(data))
    assert packed.keys() == {"input_ids", "labels"} and packed["input_ids"].tolist() == data


def test_examples_without_tokens_are_no_trouble() -> None:
    ids = np.array([[0, 0, 0], [5, 6, 7], [8, 0, 0]])
    some = Examples(ids, np.array([0, 3, 1]), np.zeros((3, 3), bool), np.arange(3))
    assert ([5, 6, 7], [IGNORED, 6, 7]) in unpacked(Collate(Causal(), packing=WIDE)(Rows(some)))
    none = Examples(ids, np.zeros(3, np.int64), np.ones((3, 3), bool), np.arange(3))
    batch = Collate(Causal(), packing=WIDE)(Rows(none))
    assert batch["input_ids"].shape == (3, 3) and Causal().count(batch["labels"]) == 0


def test_a_filler_is_packed_and_predicts_nothing() -> None:
    layout = tiny.MemoryLayout([[5, 6, 7], [8, 9]])
    batch = Collate(Causal(), packing=WIDE)(EpochExamples(layout).__getitems__([0, 1, ~0]))
    assert Causal().count(batch["labels"]) == 3
    assert sorted(len(ids) for ids, _ in unpacked(batch)) == [1, 2, 3]


def test_one_row_for_kernels_that_want_it_so() -> None:
    batch = Collate(Causal(), packing=Packing(one_row=True))(rows_in([[5, 6, 7], [8, 9], [4, 3, 2, 1]]))
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 4, 3, 2, 1]]


def isolated(segments: list[list[int]], lengths: list[int]) -> Examples:
    shape = (len(segments), len(segments[0]))
    ids = np.arange(10, 10 + shape[0] * shape[1]).reshape(shape)
    return Examples(ids, np.array(lengths), np.zeros(shape, bool), np.arange(shape[0]), segments=np.array(segments))


@pytest.mark.parametrize("packing", [None, WIDE])
def test_documents_in_blocks_keep_their_rows_and_are_not_predicted_across(packing: Packing | None) -> None:
    rows = Rows(isolated([[1, 1, 2, 3, 3], [1, 2, 2, 0, 0]], [5, 3]))
    batch = Collate(Causal(), packing=packing)(rows)
    assert batch["position_ids"].tolist() == [[0, 1, 0, 0, 1], [0, 0, 1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 11, IGNORED, IGNORED, 14], [IGNORED, IGNORED, 17, IGNORED, IGNORED]]
    assert batch.keys() == {"input_ids", "labels", "segments", "position_ids"}
    hidden = Collate(masked(), packing=packing)(rows)
    assert hidden["labels"].tolist() == masked().batch(rows.examples)["labels"].tolist(), "both sides are in view"


def test_blocks_of_one_document_need_no_isolation() -> None:
    batch = Collate(Causal())(Rows(isolated([[1, 1, 1], [1, 1, 1]], [3, 3])))
    assert batch.keys() == {"input_ids", "labels"}


def test_a_filler_of_a_block_keeps_one_token() -> None:
    examples = isolated([[1, 1, 2], [1, 2, 2]], [3, 1])
    assert Collate(Causal())(Rows(examples))["segments"].tolist() == [[1, 1, 2], [1, 0, 0]]


def test_positions_restart_with_every_segment() -> None:
    assert restarted(np.array([[1, 1, 1, 3, 3, 0, 0], [1, 2, 3, 3, 3, 3, 3]])).tolist() == [
        [0, 1, 2, 0, 1, 0, 0],
        [0, 0, 0, 1, 2, 3, 4],
    ]
