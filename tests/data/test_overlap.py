"""Validation text that training sees too: found, counted, and nothing else."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtrain.data.overlap import Overlap, _hashes, _parts, _Table, overlap
from lmtrain.data.store import TokenStore
from lmtrain.data.store_writer import StoreWriter


def stored(folder: Path, documents: list[list[int]]) -> TokenStore:
    """A store of documents of token ids; a document's checksum is that of its ids."""
    import zlib

    folder.mkdir(parents=True)
    with StoreWriter(folder, 60_000) as writer:
        for ids in documents:
            row = np.asarray(ids, np.int64)
            writer.append(row, np.array([0, len(row)]), np.array([True]), [len(ids)], [zlib.crc32(row.tobytes())])
        writer.finish({"key": "", "sources": [], "cut": None})
    return TokenStore.open(folder)


def by_hand(train: list[list[int]], validation: list[list[int]], window: int) -> int:
    """Validation tokens in windows that training has, in documents that stand alone."""
    seen = {tuple(d[i : i + window]) for d in train for i in range(len(d) - window + 1)}
    count = 0
    for document in validation:
        covered = [False] * len(document)
        for i in range(len(document) - window + 1):
            if tuple(document[i : i + window]) in seen:
                covered[i : i + window] = [True] * window
        count += len(document) if document in train else sum(covered)
    return count


def test_counts_documents_and_stretches(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    passage = random.integers(0, 50_000, 80).tolist()
    other = random.integers(0, 50_000, 500).tolist()
    short = [7, 8, 9]
    store = stored(
        tmp_path / "s",
        [
            passage,  # 0 validation: 80 tokens, all of them inside a training document
            [*other[:100], *random.integers(0, 50_000, 100).tolist()],  # 1 validation: 100 of 200
            short,  # 2 validation: word for word, though shorter than a window
            random.integers(0, 50_000, 300).tolist(),  # 3 validation: its own
            [*random.integers(0, 50_000, 30).tolist(), *passage, 5, 6],  # 4 training
            other,  # 5 training
            short,  # 6 training
        ],
    )
    found = overlap([(store, np.arange(4, 7))], [(store, np.arange(4))])
    assert found == Overlap(4, 1, 80 + 200 + 3 + 300, 80 + 100 + 3)
    assert "1 of 4 validation documents" in str(found) and "31.4%" in str(found)


@given(
    st.lists(st.lists(st.integers(0, 1), max_size=2), max_size=9),
    st.lists(st.lists(st.integers(0, 1), max_size=2), min_size=1, max_size=9),
)
@settings(max_examples=30, deadline=None)
def test_equal_documents_are_counted_however_often_there_are_such(
    tmp_path_factory: pytest.TempPathFactory, train: list[list[int]], validation: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("o")
    a, b = stored(folder / "a", train), stored(folder / "b", validation)
    halves = [(b, numbers) for numbers in np.array_split(np.arange(len(b)), 2)]
    shared = sum(document in train for document in validation if document)
    assert overlap([(a, np.arange(len(a)))], halves).shared_documents == shared
    with mock.patch("lmtrain.data.overlap._signs", lambda _, numbers: np.zeros(len(numbers), np.uint64)):
        assert overlap([(a, np.arange(len(a)))], halves).shared_documents == shared, "signs may be alike by chance"


def test_memory_does_not_grow_with_training(tmp_path: Path) -> None:
    count = 1 << 19
    with StoreWriter(tmp_path, 1000) as writer:
        ids = np.arange(count + 10, dtype=np.uint32) % 1000
        sizes = np.arange(count + 10) % 5000
        writer.append(ids, np.arange(count + 11), np.ones(count + 10, bool), sizes, sizes)
        writer.finish({"key": "", "sources": [], "cut": None})
    store = TokenStore.open(tmp_path)
    train = np.arange(10, count + 10)
    tracemalloc.start()
    found = overlap([(store, train)], [(store, np.arange(10))])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.shared_documents == 10
    assert peak < 100 * count, f"{peak / count:.0f} bytes a training document"


def test_memory_does_not_grow_with_one_long_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 1 << 20
    tokens = np.random.default_rng(0).integers(0, 1000, count)
    store = stored(tmp_path / "s", [tokens[5000:5100].tolist(), tokens.tolist()])
    monkeypatch.setattr("lmtrain.data.overlap._CHUNK", 1 << 12)
    tracemalloc.start()
    found = overlap([(store, np.array([1]))], [(store, np.array([0]))])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.shared_tokens == 100
    assert peak < count, f"{peak / count:.1f} bytes a training token"


def test_memory_for_much_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 1 << 19
    tokens = np.random.default_rng(0).integers(0, 1000, count)
    store = stored(tmp_path / "s", [tokens.tolist(), [*tokens[5000:5100].tolist(), *range(2000, 50_000)]])
    monkeypatch.setattr("lmtrain.data.overlap._CHUNK", 1 << 12)
    tracemalloc.start()
    found = overlap([(store, np.array([1]))], [(store, np.array([0]))])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.shared_tokens == 100
    assert peak < 36 * count, f"{peak / count:.1f} bytes a validation token"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what is resident of mapped files")
def test_what_was_read_of_a_store_is_let_go(tmp_path: Path) -> None:
    def mapped() -> int:
        rows = Path("/proc/self/status").read_text().splitlines()
        return next(int(row.split()[1]) for row in rows if row.startswith("RssFile"))

    store = stored(tmp_path / "s", [list(range(50, 150)), [1] * (1 << 22)])
    overlap([(store, np.array([1]))], [(store, np.array([0]))])
    before = mapped()
    assert store.tokens.sum() and mapped() > before + 6000, "kB, of 8 MB"
    store.release()
    assert mapped() < before + 1000


@pytest.mark.parametrize("sizes", [[100] * 40, [4000], [1, 3000, 500]])
def test_of_much_validation_a_part_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    tokens = np.random.default_rng(0).integers(0, 50_000, sum(sizes)).tolist()
    documents = [[tokens.pop() for _ in range(size)] for size in sizes]
    store = stored(tmp_path / "s", [*documents, *documents])
    sides = [(store, np.arange(len(sizes), 2 * len(sizes)))], [(store, np.arange(len(sizes)))]
    assert overlap(*sides) == Overlap(len(sizes), len(sizes), sum(sizes), sum(sizes))
    monkeypatch.setattr("lmtrain.data.overlap._MOST", 600)
    found = overlap(*sides)
    assert found.sampled and found.shared_tokens == found.tokens <= 600
    assert found.documents == found.shared_documents and str(found).startswith("in a sample, ")
    monkeypatch.setattr("lmtrain.data.overlap._MOST", 10_000)
    monkeypatch.setattr("lmtrain.data.overlap._MOST_DOCUMENTS", 2)
    assert overlap(*sides).documents == min(2, len(sizes))


def test_nothing_in_common_is_no_overlap(tmp_path: Path) -> None:
    store = stored(tmp_path / "s", [list(range(200)), list(range(1, 50)), list(range(300, 700))])
    found = overlap([(store, np.array([2]))], [(store, np.array([0, 1]))])
    assert not found and found.shared_tokens == 0


def test_validation_that_does_not_lie_side_by_side(tmp_path: Path) -> None:
    """Windows that begin one document have other places than those that end the one before."""
    ids = list(range(1000))
    chosen = [[*ids[900:], *ids[:60]], [*ids[:60], *ids[900:]]]  # of either the last or the first 60 are in training
    store = stored(tmp_path / "s", [chosen[0], [7] * 5, chosen[1], ids[:60]])
    found = overlap([(store, np.array([3]))], [(store, np.array([0, 2]))])
    assert (found.tokens, found.shared_tokens) == (320, 120)


def test_training_in_any_order_and_with_gaps(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).integers(0, 50_000, (4, 60)).tolist()
    store = stored(tmp_path / "s", [*rows, [*rows[0][-30:], *rows[1][:30]]])
    for train in ([0, 1], [1, 0], [3, 1, 0], [2, 0, 3, 1]):  # where 0 and 1 lie side by side, whatever the order
        assert overlap([(store, np.array(train))], [(store, np.array([4]))]).shared_tokens == 60, train
    assert not overlap([(store, np.array([0, 2]))], [(store, np.array([1]))]), "what lies between is not training"


def test_validation_is_not_compared_with_itself(tmp_path: Path) -> None:
    same = list(range(100))
    store = stored(tmp_path / "s", [same, same, list(range(500, 600))])
    assert not overlap([(store, np.array([2]))], [(store, np.array([0, 1]))])


def test_two_stores(tmp_path: Path) -> None:
    a, b = stored(tmp_path / "a", [[1] * 60, list(range(90))]), stored(tmp_path / "b", [list(range(20, 80)), []])
    found = overlap([(a, np.arange(2))], [(b, np.arange(2))])
    assert (found.shared_documents, found.shared_tokens, found.tokens) == (0, 60, 60)


def test_empty_sides(tmp_path: Path) -> None:
    store = stored(tmp_path / "s", [[1, 2, 3]])
    nothing = np.empty(0, np.int64)
    assert not overlap([(store, nothing)], [(store, np.arange(1))]) and not overlap(
        [(store, np.arange(1))], [(store, nothing)]
    )


# Documents that stand alone: a separator that no other document has keeps windows from going across borders.
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=5),
    st.integers(2, 6),
)
@settings(deadline=None)
def test_as_counted_by_hand(
    tmp_path_factory: pytest.TempPathFactory, train: list[list[int]], validation: list[list[int]], window: int
) -> None:
    folder = tmp_path_factory.mktemp("o")
    apart = [[*d, 100 + n] for n, d in enumerate(train)], [[*d, 1000 + n] for n, d in enumerate(validation)]
    among_others = [each for n, document in enumerate(apart[1]) for each in (document, [2000 + n])]
    a, b = stored(folder / "a", apart[0]), stored(folder / "b", among_others)
    found = overlap([(a, np.arange(len(a)))], [(b, np.arange(0, len(b), 2))], window)
    assert found.shared_tokens == by_hand(*apart, window)


def test_a_window_hashes_alike_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.random.default_rng(0).integers(0, 9, 1000)
    whole = _hashes(tokens, 50)
    monkeypatch.setattr("lmtrain.data.overlap._CHUNK", 64)
    parts = [_hashes(part, 50) for part in _parts(tokens, 50)]
    assert len(parts) == 15
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(whole) == 951 and _hashes(tokens[100:150], 50)[0] == whole[100]


@pytest.mark.parametrize("count", [1, 2, 3, 1000, 1025])
def test_hashes_are_found_as_a_binary_search_finds_them(count: int) -> None:
    draw = np.random.default_rng(count)
    hashes = draw.integers(0, 2**64, count, dtype=np.uint64)
    hashes[-1] = hashes[0]
    hashes[count // 2] = 2**64 - 1
    hashes.sort()
    wanted = np.concatenate(
        [hashes, draw.integers(0, 2**64, 500, dtype=np.uint64), np.array([0, 2**64 - 1], np.uint64)]
    )
    at = np.minimum(np.searchsorted(hashes, wanted), count - 1)
    found = _Table(hashes).found(wanted)
    assert set(found.tolist()) == set(at[hashes[at] == wanted].tolist())
    none = _Table(hashes[:1] // np.uint64(2)).found(np.array([2**64 - 1, 1], np.uint64))
    assert none.size == 0
