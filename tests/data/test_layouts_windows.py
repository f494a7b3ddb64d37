"""Windows of single documents: nothing crosses a document, and what is dropped is counted."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from lmtrain.core.errors import UserError
from lmtrain.data.layouts import Windows
from lmtrain.data.store import TokenStore
from lmtrain.data.store_writer import StoreWriter

DOCUMENTS = [[10, 11, 12, 13, 14], [20], [], [30, 31], [40, 41, 42, 43]]


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    """Each token stands for two bytes of text."""
    with StoreWriter(tmp_path, 1000) as writer:
        for ids in DOCUMENTS:
            writer.append(np.array(ids, np.uint32), np.array([0, len(ids)]), [True], [2 * len(ids)], [0])
        writer.finish({"key": "", "sources": []})
    return TokenStore.open(tmp_path)


def ids_of(layout: Windows) -> list[list[int]]:
    return [layout[i]["input_ids"].tolist() for i in range(len(layout))]


def test_full_windows_of_each_document(store: TokenStore) -> None:
    layout = Windows(store, np.arange(5), 2)
    assert ids_of(layout) == [[10, 11], [12, 13], [30, 31], [40, 41], [42, 43]]
    ledger = layout.ledger
    assert (ledger.documents, ledger.tokens, ledger.examples, ledger.placed, ledger.dropped) == (5, 12, 5, 10, 2)
    assert layout.n_bytes == 20 and layout.n_tokens == 10 and layout.lengths.tolist() == [2] * 5


def test_special_tokens_stand_in_every_window_and_are_marked(store: TokenStore) -> None:
    layout = Windows(store, np.array([4, 0]), 4, prefix=(1,), suffix=(2,))
    assert ids_of(layout) == [[1, 40, 41, 2], [1, 42, 43, 2], [1, 10, 11, 2], [1, 12, 13, 2]]
    batch = layout.__getitems__([3, 0])
    assert batch.special.tolist() == [[True, False, False, True]] * 2
    ledger = layout.ledger
    assert (ledger.tokens, ledger.specials, ledger.placed, ledger.dropped) == (9, 8, 16, 1)


def test_the_first_windows_and_through_a_pickle(store: TokenStore) -> None:
    layout = Windows(store, np.arange(5), 2).take(3)
    again = pickle.loads(pickle.dumps(layout))
    assert ids_of(again) == ids_of(layout) == [[10, 11], [12, 13], [30, 31]]
    assert again.n_bytes == 12 and again.ledger == layout.ledger
    assert (layout.ledger.placed, layout.ledger.dropped) == (6, 6)
    with pytest.raises(IndexError):
        layout[3]


def test_no_window_at_all_says_how_long_the_longest_is(store: TokenStore) -> None:
    with pytest.raises(UserError, match=r"the longest has 5"):
        Windows(store, np.arange(5), 6)
    with pytest.raises(UserError, match="no room for text"):
        Windows(store, np.arange(5), 2, prefix=(1,), suffix=(2,))
