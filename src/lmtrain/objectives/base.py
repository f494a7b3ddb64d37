"""What an objective is: from the rows of a batch to the inputs of a model and the labels to predict.

Shapes: ``B`` examples, ``T`` positions. Labels follow the convention of ``transformers``: int64 of shape
(B, T) aligned with ``input_ids``, :data:`IGNORED` where nothing is predicted. Where the objective is
``shifted`` the label at position t is predicted from the positions before t, so the label at position 0
never is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lmtrain.core.types import Examples

IGNORED: Final = -100
KEYS: Final = "key_tokens"
"""In a batch, of an objective that looks for them: how many key tokens each position's example holds, (B, T) int64."""


class Objective(ABC):
    """A choice of the positions to predict."""

    shifted: bool

    @abstractmethod
    def batch(self, examples: Examples) -> dict[str, Tensor]:
        """The inputs of a model (``input_ids``, ``attention_mask`` where there is padding) and ``labels``."""

    def facts(self, examples: Examples) -> dict[str, Tensor]:
        """What a batch holds for :meth:`weights` beside the model's inputs and labels: (B, T) each."""
        return {}

    def weights(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """What the loss of each label is multiplied by in training: fp32 (B, T) aligned with the labels; None for 1."""
        return None

    def targets(self, labels: Tensor) -> Tensor:
        """What each position's logits are compared with: (B, T), :data:`IGNORED` where with nothing.

        The labels move one to the left rather than the logits to the right: no copy of (B, T, V) values.
        """
        return self.at_targets(labels, IGNORED)

    def at_targets(self, values: Tensor, filling: float) -> Tensor:
        """``values`` (B, T), given for the labels, at the positions whose logits those are compared with."""
        if not self.shifted:
            return values
        return torch.nn.functional.pad(values, (0, 1), value=filling)[..., 1:]

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


def inputs_of(batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a model takes of a batch: all but the labels and what the objective put there for itself."""
    return {name: value for name, value in batch.items() if name not in ("labels", KEYS)}


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
