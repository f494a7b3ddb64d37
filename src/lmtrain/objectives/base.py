"""What an objective is: from the rows of a batch to the inputs of a model and the labels to predict.

Shapes: ``B`` examples, ``T`` positions. Labels follow the convention of ``transformers``: int64 of shape
(B, T) aligned with ``input_ids``, :data:`IGNORED` where nothing is predicted. Where the objective is
``shifted`` the label at position t is predicted from the positions before t, so the label at position 0
never is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lmtrain.core.types import Examples

IGNORED: Final = -100


class Objective(ABC):
    """A choice of the positions to predict."""

    shifted: bool

    @abstractmethod
    def batch(self, examples: Examples) -> dict[str, Tensor]:
        """The inputs of a model (``input_ids``, ``attention_mask`` where there is padding) and ``labels``."""

    def targets(self, labels: Tensor) -> Tensor:
        """What each position's logits are compared with: (B, T), :data:`IGNORED` where with nothing.

        The labels move one to the left rather than the logits to the right: no copy of (B, T, V) values.
        """
        if not self.shifted:
            return labels
        return torch.nn.functional.pad(labels, (0, 1), value=IGNORED)[..., 1:]

    def count(self, labels: Tensor) -> Tensor:
        """How many positions are predicted: int64 of shape ()."""
        predicted = labels[..., 1:] if self.shifted else labels
        return predicted.ne(IGNORED).sum()


class Labelled(Objective):
    """Labels that come with the batch, from one's own collator or data set."""

    def __init__(self, *, shifted: bool) -> None:
        self.shifted = shifted

    def batch(self, examples: Examples) -> dict[str, Tensor]:
        raise ValueError("the data set yields no labels; give an objective, or a data collator that makes labels")


def model_inputs(examples: Examples) -> dict[str, Tensor]:
    """``input_ids`` (B, T), and ``attention_mask`` (B, T) only when a row is shorter than T.

    No mask where none is needed: models take faster attention kernels without one.
    """
    ids = torch.from_numpy(np.ascontiguousarray(examples.ids, dtype=np.int64))
    inputs = {"input_ids": ids}
    if examples.lengths.size and int(examples.lengths.min()) < ids.shape[1]:
        inputs["attention_mask"] = torch.from_numpy(real_positions(examples).astype(np.int64))
    return inputs


def real_positions(examples: Examples) -> np.ndarray:
    """(B, T) bool: True up to each row's true length, whatever ids follow."""
    return np.arange(examples.ids.shape[1]) < examples.lengths[:, None]
