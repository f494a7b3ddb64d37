"""Only completions are predicted, whatever ids they have and however they are packed."""

from __future__ import annotations

import numpy as np
import pytest

from lmtrain.core.types import Examples
from lmtrain.engine.batches.collate import Collate, Rows
from lmtrain.engine.batches.packed import Packing
from lmtrain.objectives import IGNORED, Causal, Completion

IDS = np.array([[7, 4, 9, 5, 0], [6, 0, 0, 0, 0]])  # the second's completion is a real 0
LENGTHS = np.array([4, 2])
ANSWER = np.array([[0, 0, 1, 1, 0], [0, 1, 0, 0, 0]], bool)
EXAMPLES = Examples(IDS, LENGTHS, np.zeros((2, 5), bool), np.arange(2), answer=ANSWER)


def test_the_completion_is_labelled_and_nothing_else() -> None:
    batch = Completion().batch(EXAMPLES)
    assert batch["labels"].tolist() == [[-100, -100, 9, 5, -100], [-100, 0, -100, -100, -100]]
    assert Completion().count(batch["labels"]) == 3
    assert Causal().count(Causal().batch(EXAMPLES)["labels"]) == 4


def test_packed_end_to_end_the_labels_are_the_same() -> None:
    batch = Collate(Completion(), packing=Packing(one_row=True))(Rows(EXAMPLES))
    assert batch["input_ids"].tolist() == [[7, 4, 9, 5, 6, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 9, 5, -100, 0]]


def test_a_completion_without_context_loses_its_first_token_to_no_one_elses() -> None:
    whole = Examples(IDS, LENGTHS, np.zeros((2, 5), bool), np.arange(2), answer=np.ones((2, 5), bool))
    labels = Collate(Completion(), packing=Packing(one_row=True))(Rows(whole))["labels"]
    assert labels.tolist() == [[IGNORED, 4, 9, 5, IGNORED, 0]]


def test_examples_without_completions_are_refused() -> None:
    with pytest.raises(ValueError, match="no completions"):
        Completion().batch(Examples(IDS, LENGTHS, np.zeros((2, 5), bool), np.arange(2)))
