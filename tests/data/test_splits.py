"""Which documents are held out, and where a single text is cut."""

from __future__ import annotations

import hashlib
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from corpora import Texts
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtrain.core.errors import UserError
from lmtrain.core.types import Tally
from lmtrain.data.splits import first_count, split_documents
from lmtrain.data.store import TokenStore
from lmtrain.data.store_writer import StoreWriter
from lmtrain.data.validation_cut import cut_pieces, find_cut


def stored(folder: Path, files: list[list[str]], cut: object = None) -> TokenStore:
    """A store of files of documents; each character is a token."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [
        {
            "name": f"file {number}",
            "sha256": hashlib.sha256("\0".join(file).encode()).hexdigest(),
            "bytes": sum(len(text.encode()) for text in file),
            "documents": len(file),
        }
        for number, file in enumerate(files)
    ]
    with StoreWriter(folder, 0x110000) as writer:
        for text in (text for file in files for text in file):
            ids = np.array([ord(c) for c in text], np.uint32)
            size = len(text.encode())
            writer.append(ids, np.array([0, len(ids)]), [True], [size], [zlib.crc32(text.encode())])
        writer.finish({"key": "", "sources": sources, "cut": cut})
    return TokenStore.open(folder)


def test_rows_are_counted_as_datasets_counts_them() -> None:
    datasets = pytest.importorskip("datasets")
    for rows in (1, 9, 10, 11, 29, 30, 50, 70, 90, 1001):
        data = datasets.Dataset.from_dict({"n": list(range(rows))})
        for percentage in (1, 5, 10, 50):
            instruction = datasets.ReadInstruction("x", to=percentage, unit="%")
            relative = instruction.to_absolute({"x": len(data)})[0]
            assert first_count(percentage, rows) == relative.to - (relative.from_ or 0), (rows, percentage)


def test_first(tmp_path: Path) -> None:
    split = split_documents(stored(tmp_path, [[f"text {i}" for i in range(50)]]), "first", 5)
    assert split.validation.tolist() == [0, 1] and split.train.tolist() == list(range(2, 50))
    assert "2 of 50" in split.line


def test_nothing_is_held_out_at_zero(tmp_path: Path) -> None:
    split = split_documents(stored(tmp_path, [["a", "b"]]), "hash", 0)
    assert len(split.validation) == 0 and split.train.tolist() == [0, 1]


def test_by_content_a_document_stays_where_it_is(tmp_path: Path) -> None:
    texts = [f"document number {i}" for i in range(4000)]
    before = split_documents(stored(tmp_path / "a", [texts[:2000]]), "hash", 5, seed=3)
    grown = split_documents(stored(tmp_path / "b", [texts[2000:], texts[:2000]]), "hash", 5, seed=3)
    assert {texts[i] for i in before.validation} == {
        ([*texts[2000:], *texts[:2000]])[i] for i in grown.validation if i >= 2000
    }
    # 4000 draws at 5 %: 200 expected; |n - 200| > 70 happens once in 10^6 seeds, and the seed is fixed
    assert 130 < len(grown.validation) < 270
    other = split_documents(stored(tmp_path / "a2", [texts[:2000]]), "hash", 5, seed=4)
    assert set(other.validation) != set(before.validation)


def test_by_content_equal_documents_are_on_one_side(tmp_path: Path) -> None:
    store = stored(tmp_path, [[f"text {i % 40}" for i in range(400)]])
    split = split_documents(store, "hash", 30)
    assert {i % 40 for i in split.train}.isdisjoint({i % 40 for i in split.validation})
    assert len(split.train) + len(split.validation) == 400


def test_whole_files(tmp_path: Path) -> None:
    files = [[f"file {n} line {i} " * 9 for i in range(n % 5 + 1)] for n in range(60)]
    files[7] = files[3]  # equal files stay together
    store = stored(tmp_path, files)
    split = split_documents(store, "files", 10)
    owner = np.repeat(np.arange(60), [len(f) for f in files])
    held = set(owner[split.validation])
    assert held.isdisjoint(owner[split.train])
    assert (3 in held) == (7 in held)
    share = int(store.n_bytes[split.validation].sum()) / int(store.n_bytes.sum())
    assert 0.07 < share < 0.13
    assert split_documents(store, "files", 10).validation.tolist() == split.validation.tolist()


@pytest.mark.parametrize(
    ("files", "mode", "percentage", "says"),
    [
        ([["a", "b", "c"]], "first", 5, "none for validation"),
        ([["a", "b", "c"]], "first", 99, "none for training"),
        ([["a"]], "hash", 0.001, "none for validation"),
        ([["a", "b"]], "files", 5, "single one"),
    ],
)
def test_an_empty_side_is_explained(
    tmp_path: Path, files: list[list[str]], mode: str, percentage: float, says: str
) -> None:
    with pytest.raises(UserError, match=says) as caught:
        split_documents(stored(tmp_path, files), mode, percentage)
    assert caught.value.problems[0].flag


def cut_documents(source: Texts, percentage: float) -> list[str]:
    cut = find_cut([source], percentage)
    assert cut is not None
    documents: list[str] = []
    for piece in cut_pieces(source.pieces(Tally()), cut):
        assert piece.n_bytes == len(piece.text.encode()) and piece.utf8 in (None, piece.text.encode())
        documents += [""] if piece.first else []
        documents[-1] += piece.text
    assert len("".join(documents[: cut.validation_documents]).encode()) == cut.bytes
    return documents


def test_one_text_is_cut_at_the_line_break_nearest_to_the_percentage() -> None:
    lines = [f"line {i:02d}\n" for i in range(100)]  # 8 bytes each
    first, second = cut_documents(Texts("".join(lines)), 5)
    assert first == "".join(lines[:5]) and first + second == "".join(lines)
    assert cut_documents(Texts("".join(lines)), 5.7)[0] == "".join(lines[:6])


def test_one_text_without_line_breaks_is_cut_between_words_else_characters() -> None:
    first, _ = cut_documents(Texts("word " * 100), 5)
    assert first == "word " * 6
    first, second = cut_documents(Texts("é" * 100), 5)
    assert (len(first), len(second)) == (5, 95)
    first, _ = cut_documents(Texts("one very long line " * 20 + "\nshort\n"), 5)
    assert len(first) < 40, "the only line break would leave nothing to train on"


def test_few_documents_are_cut_where_the_percentage_of_their_bytes_lies() -> None:
    documents = cut_documents(Texts("tiny\n", "a line\n" * 40, "the rest\n" * 10), 5)
    assert documents[0] == "tiny\n"
    assert documents[1] + documents[2] == "a line\n" * 40 and len(documents) == 4


def test_many_documents_are_not_cut_and_not_all_read() -> None:
    source = Texts(*[f"document {i}\n" for i in range(30)])
    assert find_cut([source], 5) is None
    assert find_cut([source], 0) is None and find_cut([source], 100) is None


@given(
    text=st.text(st.sampled_from("ab \n\ré🙂"), min_size=2, max_size=80),
    cuts=st.lists(st.integers(1, 79), max_size=5),
    percentage=st.floats(0.5, 99.5),
)
@settings(max_examples=200, deadline=None)
def test_a_cut_loses_nothing_and_leaves_neither_side_empty(text: str, cuts: list[int], percentage: float) -> None:
    at = sorted({0, *(c for c in cuts if c < len(text)), len(text)})
    documents = cut_documents(Texts([text[a:b] for a, b in pairwise(at)]), percentage)
    assert len(documents) == 2 and all(documents) and "".join(documents) == text
