import numpy as np
import torch

from lmtrain.core.types import Examples
from lmtrain.objectives import IGNORED, Causal, Labelled


def examples(ids: list[list[int]], lengths: list[int]) -> Examples:
    array = np.array(ids)
    return Examples(
        array, np.array(lengths), np.arange(array.shape[1]) >= np.array(lengths)[:, None], np.arange(len(ids))
    )


def test_a_real_end_of_text_stays_a_label_and_padding_with_the_same_id_does_not() -> None:
    batch = Causal().batch(examples([[7, 4, 9, 0, 0], [3, 0, 0, 0, 0]], [4, 2]))
    assert batch["labels"].tolist() == [[7, 4, 9, 0, IGNORED], [3, 0, IGNORED, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]


def test_full_rows_have_no_attention_mask_and_every_id_as_label() -> None:
    batch = Causal().batch(examples([[1, 2], [3, 4]], [2, 2]))
    assert set(batch) == {"input_ids", "labels"}
    assert torch.equal(batch["labels"], batch["input_ids"])
    assert batch["labels"].data_ptr() != batch["input_ids"].data_ptr()


def test_targets_are_the_labels_one_to_the_left() -> None:
    labels = torch.tensor([[7, 8, IGNORED, 9]])
    assert Causal().targets(labels).tolist() == [[8, IGNORED, 9, IGNORED]]
    assert Causal().count(labels).item() == 2  # the 7 has nothing before it
    assert Labelled(shifted=False).targets(labels) is labels
    assert Labelled(shifted=False).count(labels).item() == 3
