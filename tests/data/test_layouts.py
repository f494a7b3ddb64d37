"""Blocks and lines are views: every token of the store is in one example, or counted as dropped."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtrain.core.errors import UserError
from lmtrain.data.layouts import Blocks, Lines, Windows
from lmtrain.data.ledger import Ledger
from lmtrain.data.packing import fill
from lmtrain.data.store import TokenStore
from lmtrain.data.store_writer import StoreWriter

Documents = list[list[int]]


def stored(folder: Path, documents: Documents) -> TokenStore:
    """A store of given ids; each token stands for two bytes of text."""
    folder.mkdir(parents=True, exist_ok=True)
    with StoreWriter(folder, 1000) as writer:
        for ids in documents:
            writer.append(np.array(ids, np.uint32), np.array([0, len(ids)]), [True], [2 * len(ids)], [0])
        writer.finish({"key": "", "sources": []})
    return TokenStore.open(folder)


def row_of(documents: Documents, prefix: tuple[int, ...], suffix: tuple[int, ...]) -> list[tuple[int, bool]]:
    """The documents in a row: ids, and whether each is the layout's own."""
    row = []
    for ids in documents:
        row += [(i, True) for i in prefix] + [(i, False) for i in ids] + [(i, True) for i in suffix]
    return row


def expected_blocks(
    documents: Documents,
    size: int,
    prefix: tuple[int, ...],
    suffix: tuple[int, ...],
    drop: bool,
    group: int | None,
) -> list[list[tuple[int, bool]]]:
    """Blocks as the description has them, slowly."""
    blocks = []
    step = group or max(1, len(documents))
    for start in range(0, len(documents), step):
        row = row_of(documents[start : start + step], prefix, suffix)
        cut = [row[i : i + size] for i in range(0, len(row), size)]
        if cut and drop and len(cut[-1]) < size and (group or len(cut) > 1):
            cut.pop()
        blocks += cut
    return blocks


documents_of = st.lists(st.lists(st.integers(10, 999), max_size=9), min_size=1, max_size=12)
specials_of = st.sampled_from([((), ()), ((), (0,)), ((1,), (2,)), ((1, 3), (2, 4, 5))])


@given(
    documents=documents_of,
    around=specials_of,
    size=st.integers(1, 12),
    drop=st.booleans(),
    group=st.none() | st.integers(1, 5),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=150, deadline=None)
def test_blocks_are_the_row_cut_up(
    tmp_path_factory: pytest.TempPathFactory,
    documents: Documents,
    around: tuple[tuple[int, ...], tuple[int, ...]],
    size: int,
    drop: bool,
    group: int | None,
    order: object,
) -> None:
    store = stored(tmp_path_factory.mktemp("store"), documents)
    chosen = order.sample(range(len(documents)), order.randint(1, len(documents)))  # type: ignore[attr-defined]
    blocks = Blocks(store, np.array(chosen), size, *around, drop_remainder=drop, group_batch=group, pad_id=7)
    expected = expected_blocks([documents[i] for i in chosen], size, *around, drop, group)
    found = [blocks[i] for i in range(len(blocks))]
    assert [b["input_ids"].tolist() for b in found] == [[i for i, _ in block] for block in expected]
    assert [b["special_tokens_mask"].tolist() for b in found] == [[int(s) for _, s in block] for block in expected]

    assert blocks.lengths.tolist() == [len(block) for block in expected]
    assert blocks.take(2).lengths.tolist() == [len(block) for block in expected[:2]]

    ledger = blocks.ledger  # its own identity is checked when it is made
    assert ledger.placed == blocks.n_tokens == sum(map(len, expected))
    assert ledger.tokens == sum(len(documents[i]) for i in chosen)
    if drop and group is None:
        assert ledger.dropped < size
    if not drop:
        assert ledger.dropped == 0
    # two bytes a token; a document in part counts its share, rounded
    content = sum(not special for block in expected for _, special in block)
    assert blocks.n_bytes == 2 * content


def test_figures_of_equal_blocks_are_not_kept_for_each(tmp_path: Path) -> None:
    """A store of a terabyte has a billion examples."""
    store = stored(tmp_path, [[1] * 30, [2], [3] * 40])
    for layout in (Blocks(store, np.arange(3), 4, (), (0,)), Windows(store, np.arange(3), 4)):
        assert layout.lengths.strides == (0,) and layout.lengths.tolist() == [4] * len(layout)
    blocks = Blocks(store, np.arange(3), 4, (), (0,))  # 30 and a 0, 1 and a 0, 40 and a 0
    assert blocks.first_tokens[np.array([16, 0, 7, 8])].tolist() == [62, 0, 28, 31]
    assert len(blocks) == 18 and np.array_equal(np.asarray(blocks.first_tokens), blocks.first_tokens[np.arange(18)])
    assert blocks.first_tokens.ascending
    assert not Blocks(store, np.array([0, 2, 1]), 4).first_tokens.ascending


def test_a_batch_in_one_go_is_the_blocks_one_by_one(tmp_path: Path) -> None:
    store = stored(tmp_path, [list(range(10, 10 + n)) for n in (5, 0, 11, 3)])
    blocks = Blocks(store, np.arange(4), 4, (), (0,), drop_remainder=False, pad_id=9)
    indices = [5, 0, 2, 5]
    batch = blocks.__getitems__(indices)
    assert batch.ids.shape == (4, 4) and batch.ids.dtype == np.int64
    assert batch.index.tolist() == indices
    for row, index in enumerate(indices):
        one = blocks[index]
        length = len(one["input_ids"])
        assert batch.lengths[row] == length
        assert batch.ids[row, :length].tolist() == one["input_ids"].tolist()
        assert batch.special[row, :length].tolist() == one["special_tokens_mask"].astype(bool).tolist()
        assert (batch.ids[row, length:] == 9).all() and batch.special[row, length:].all()
    assert batch.lengths.tolist() == [3, 4, 4, 3], "the last block is short"


@given(documents=documents_of, around=specials_of, size=st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_isolated_documents_are_numbered_in_the_same_blocks(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, around: tuple[tuple[int, ...], ...], size: int
) -> None:
    store = stored(tmp_path_factory.mktemp("store"), documents)
    prefix, suffix = around
    options = {"drop_remainder": False, "pad_id": 7}
    joined = Blocks(store, np.arange(len(documents)), size, prefix, suffix, **options)
    isolated = Blocks(store, np.arange(len(documents)), size, prefix, suffix, isolate_documents=True, **options)
    if not len(joined):
        return
    every = list(range(len(joined)))
    one, other = joined.__getitems__(every), isolated.__getitems__(every)
    assert one.segments is None and other.segments is not None
    assert np.array_equal(one.ids, other.ids) and np.array_equal(one.lengths, other.lengths)
    assert np.array_equal(other.segments > 0, np.arange(size)[: one.ids.shape[1]] < one.lengths[:, None])
    owners = [d for d, ids in enumerate(documents) for _ in range(len(prefix) + len(ids) + len(suffix))]
    for row, start in enumerate(range(0, len(owners), size)):
        numbers, owner = other.segments[row, : other.lengths[row]], owners[start : start + size]
        assert numbers[0] == 1
        same = [a == b for a, b in pairwise(numbers)]
        assert same == [a == b for a, b in pairwise(owner)]
    again = pickle.loads(pickle.dumps(isolated)).__getitems__([0])
    assert np.array_equal(again.segments[0], other.segments[0, : again.ids.shape[1]])
    assert isolated.take(1).__getitems__([0]).segments is not None


def test_text_shorter_than_a_block_is_one_short_block(tmp_path: Path) -> None:
    store = stored(tmp_path, [[10, 11], [12]])
    blocks = Blocks(store, np.arange(2), 100, (), (0,))
    assert len(blocks) == 1 and blocks[0]["input_ids"].tolist() == [10, 11, 0, 12, 0]
    assert blocks.ledger.dropped == 0
    assert blocks.note is not None and "one short block" in blocks.note
    assert Blocks(store, np.arange(2), 2, (), (0,)).note is None
    assert len(Blocks(store, np.arange(2), 100, group_batch=1000)) == 0, "the scripts drop it"


@pytest.mark.parametrize("index", [2, -1, 100])
def test_an_index_outside_is_an_error(tmp_path: Path, index: int) -> None:
    blocks = Blocks(stored(tmp_path, [list(range(10, 20))]), np.arange(1), 4)
    assert len(blocks) == 2
    with pytest.raises(IndexError):
        blocks[index]


def test_the_first_blocks_are_accounted_for(tmp_path: Path) -> None:
    store = stored(tmp_path, [list(range(10, 10 + n)) for n in (5, 4, 11)])
    all_of_it = Blocks(store, np.arange(3), 4, (), (0,))
    taken = all_of_it.take(2)
    assert len(taken) == 2 and len(all_of_it) == 5 and len(taken.take(9)) == 2
    assert taken.n_tokens == 8 and taken.ledger.dropped == 23 - 8
    assert taken.n_bytes == 2 * 7, "5 tokens of the first document, 2 of the second, one of the layout's own"
    with pytest.raises(IndexError):
        taken[2]
    again = pickle.loads(pickle.dumps(taken))
    assert len(again) == 2 and again[1]["input_ids"].tolist() == taken[1]["input_ids"].tolist()


@given(documents=documents_of, around=specials_of, room=st.integers(1, 8), pad_to=st.booleans(), data=st.data())
@settings(max_examples=80, deadline=None)
def test_lines_are_documents_cut_to_fit(
    tmp_path_factory: pytest.TempPathFactory,
    documents: Documents,
    around: tuple[tuple[int, ...], tuple[int, ...]],
    room: int,
    pad_to: bool,
    data: st.DataObject,
) -> None:
    prefix, suffix = around
    longest = room + len(prefix) + len(suffix)
    store = stored(tmp_path_factory.mktemp("store"), documents)
    lines = Lines(
        store,
        np.arange(len(documents)),
        longest,
        prefix,
        suffix,
        pad_to=longest if pad_to else None,
        pad_id=8,
    )
    assert len(lines) == len(documents)
    indices = data.draw(st.lists(st.integers(0, len(documents) - 1), min_size=1, max_size=5))
    batch = lines.__getitems__(indices)
    for row, index in enumerate(indices):
        ids = [*prefix, *documents[index][:room], *suffix]
        assert batch.ids[row, : batch.lengths[row]].tolist() == ids == lines[index]["input_ids"].tolist()
        marks = [True] * len(prefix) + [False] * len(documents[index][:room]) + [True] * len(suffix)
        assert batch.special[row, : len(ids)].tolist() == marks and batch.special[row, len(ids) :].all()
        assert (batch.ids[row, len(ids) :] == 8).all()
    assert batch.ids.shape[1] == (longest if pad_to else batch.lengths.max())
    kept = sum(len(d[:room]) for d in documents)
    assert lines.ledger.dropped == sum(map(len, documents)) - kept
    assert lines.n_tokens == kept + len(documents) * (len(prefix) + len(suffix))
    assert lines.n_bytes == 2 * kept
    assert lines.lengths.tolist() == [len(lines[i]["input_ids"]) for i in range(len(lines))]
    assert lines.take(1).lengths.tolist() == lines.lengths[:1].tolist()
    taken = pickle.loads(pickle.dumps(lines.take(1)))
    assert len(taken) == 1 and taken.n_bytes == 2 * len(documents[0][:room])


def test_the_ledger_of_lines_says_what_padding_wastes(tmp_path: Path) -> None:
    store = stored(tmp_path, [list(range(10, 10 + n)) for n in [2, 30] * 20])
    lines = Lines(store, np.arange(40), 40, (1,), (2,))
    filled = lines.ledger.fill
    assert filled is not None and filled == fill(lines.lengths, 8) and filled.padded < 0.8 < filled.packed
    account = Ledger(splits={"train": lines.ledger})
    assert account.as_json()["splits"]["train"]["fill"] == {"padded": filled.padded, "packed": filled.packed}
    assert f"fill {filled.padded:.0%} of a padded batch of 8, {filled.packed:.0%} packed" in "\n".join(account.lines())
    assert Blocks(store, np.arange(40), 8).ledger.fill is None, "blocks are full"


def test_no_room_for_text_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no room for text") as caught:
        Lines(stored(tmp_path, [[10]]), np.arange(1), 2, (1,), (2,))
    assert caught.value.problems[0].flag == "--max_seq_length"
