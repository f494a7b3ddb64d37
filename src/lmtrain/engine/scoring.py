"""From a batch to its loss sums: the head where there is a label, or the plain way over all logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmtrain.models.head import Head, scored_at
from lmtrain.objectives import IGNORED, LossSums, Objective, model_loss_sums
from lmtrain.objectives.linear_cross_entropy import DEFAULT, Kernel, linear_cross_entropy


@dataclass(frozen=True)
class Scoring:
    """How batches are scored. Without a ``head`` the model makes all its logits."""

    head: Head | None = None
    kernel: Kernel = DEFAULT

    def __call__(
        self,
        model: torch.nn.Module,
        batch: Mapping[str, Tensor],
        objective: Objective,
        *,
        label_smoothing: float = 0.0,
        accuracy: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> LossSums:
        """The sums over the predicted positions of ``batch``, which has ``labels`` beside the model's inputs.

        ``label_smoothing`` ε: (1 − ε)·nll + ε·mean over V of −log p. ``accuracy``: also count the labels that are the
        most likely token. ``dtype`` is that of the sum.
        """
        if self.head is None:
            return model_loss_sums(
                model, batch, objective, label_smoothing=label_smoothing, accuracy=accuracy, dtype=dtype
            )[0]
        targets = objective.targets(batch["labels"]).flatten()
        positions = targets.ne(IGNORED).nonzero().squeeze(-1)
        head, made = self.head, []

        def score(hidden: Tensor) -> Tensor:
            sums = linear_cross_entropy(
                hidden, head.output.weight, head.bias, targets[positions],
                label_smoothing=label_smoothing, softcap=head.softcap, scale=head.scale,
                accuracy=accuracy, kernel=self.kernel, dtype=dtype,
            )  # fmt: skip
            made.append(LossSums(sums.loss, sums.count, sums.correct))
            return sums.loss

        inputs: dict[str, Any] = {name: value for name, value in batch.items() if name != "labels"}
        with scored_at(head, positions, score):
            model(**inputs)
        if len(made) != 1:
            raise LookupError(f"its output layer was used {len(made)} times in one forward pass")
        return made[0]
