"""Predict the answer, given what was asked."""

from __future__ import annotations

import torch

from lmtrain.core.types import Examples
from lmtrain.objectives.base import IGNORED, Objective, model_inputs, real_positions


class Completion(Objective):
    """The tokens of an example's completion are predicted from all before them; those of its context are not.

    ::

        ids     7 4 9 5 0        context 7 4, completion 9 5, padding
        labels  - - 9 5 -

    To learn context and completion alike is :class:`~lmtrain.objectives.Causal`. A first token is never predicted, so
    of an example without a context the first of the completion is not.
    """

    shifted = True

    def batch(self, examples: Examples) -> dict[str, torch.Tensor]:
        if examples.answer is None:
            raise ValueError("these examples have no completions; a layout of pairs has (lmtrain.data.layouts.Pairs)")
        inputs = model_inputs(examples)
        predicted = torch.from_numpy(examples.answer & real_positions(examples))
        return {**inputs, "labels": inputs["input_ids"].masked_fill(~predicted, IGNORED)}
