"""Predict every next token."""

from __future__ import annotations

import torch
from torch import Tensor

from lmtrain.core.types import Examples
from lmtrain.objectives.base import IGNORED, Objective, model_inputs, real_positions


class Causal(Objective):
    """Every token but the first of its row is predicted from those before it.

    Labels end where the row ends, which its length says; an end-of-text token stays a label even where the
    padding has the same id::

        ids     7 4 9 0 0        (length 4: the first 0 is a real end-of-text token, the second is padding)
        labels  7 4 9 0 -100
    """

    shifted = True

    def batch(self, examples: Examples) -> dict[str, Tensor]:
        inputs = model_inputs(examples)
        labels = inputs["input_ids"].clone()
        if "attention_mask" in inputs:
            labels[torch.from_numpy(~real_positions(examples))] = IGNORED
        return {**inputs, "labels": labels}
