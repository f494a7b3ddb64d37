"""From a batch to its loss sums: the head where there is a label, or the plain way over all logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lmtrain.models.head import Head, scored_at
from lmtrain.objectives import IGNORED, LossSums, Objective, model_loss_sums
from lmtrain.objectives.base import inputs_of
from lmtrain.objectives.linear_cross_entropy import DEFAULT, Kernel, bounded, linear_cross_entropy
from lmtrain.objectives.loss import keyed_in, with_router_loss


@dataclass(frozen=True)
class Scoring:
    """How batches are scored. Without a ``head`` the model makes all its logits. ``weight`` (V, D): the head's in the
    format of the products, where it was made beforehand."""

    head: Head | None = None
    kernel: Kernel = DEFAULT
    weight: Tensor | None = None

    def ahead(self, dtype: torch.dtype) -> Scoring:
        """For passes between which no weight changes: the same, with the head's weight in ``dtype`` already.

        Each pass would make that copy, so the most memory at once is what it was.
        """
        if self.head is None:
            return self
        weight = self.head.output.weight.detach()
        return replace(self, weight=weight.to(dtype) if weight.dtype is torch.float32 else None)

    def __call__(
        self,
        model: torch.nn.Module,
        batch: Mapping[str, Tensor],
        objective: Objective,
        *,
        weighted: bool = True,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        accuracy: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> LossSums:
        """The sums over the predicted positions of ``batch``, which has ``labels`` beside the model's inputs.

        ``weighted``: as training has them, with the objective's weights and a router's loss; without, examples with key
        tokens are summed apart too. ``label_smoothing`` ε: (1 − ε)·nll + ε·mean over V of −log p. ``z_loss`` ζ:
        ζ·logsumexp² is added. ``accuracy``: also count the labels that are the most likely token. ``dtype`` is that of
        the sum.
        """
        asked: dict[str, Any] = {
            "label_smoothing": label_smoothing,
            "z_loss": z_loss,
            "accuracy": accuracy,
            "dtype": dtype,
        }
        if self.head is None:
            return model_loss_sums(model, batch, objective, weighted=weighted, **asked)[0]
        targets = objective.targets(batch["labels"]).flatten()
        positions = targets.ne(IGNORED).nonzero().squeeze(-1)
        weights, keyed = (
            None if values is None else objective.at_targets(values, 0).flatten()[positions]
            for values in ((objective.weights(batch), None) if weighted else (None, keyed_in(batch)))
        )
        head, labels, made = self.head, targets[positions], []

        def sums_of(hidden: Tensor, labels: Tensor) -> LossSums:
            weight = head.output.weight if self.weight is None else self.weight
            kernel = bounded(self.kernel, len(labels), len(weight), gradients=torch.is_grad_enabled())
            sums = linear_cross_entropy(
                hidden, weight, head.bias, labels, weights,
                softcap=head.softcap, scale=head.scale, all_predicted=True, kernel=kernel, **asked,
            )  # fmt: skip
            return LossSums(sums.loss, sums.count, sums.correct)

        def score(hidden: Tensor) -> Tensor:
            if keyed is None:
                made.append(sums_of(hidden, labels))
            else:  # each position is scored once, so knowing both parts costs nothing
                made.append(_joined(*(sums_of(hidden[part], labels[part]) for part in (keyed, ~keyed))))
            return made[-1].loss

        with scored_at(head, positions, score):
            outputs = model(**inputs_of(batch))
        if len(made) != 1:
            raise LookupError(f"its output layer was used {len(made)} times in one forward pass")
        return with_router_loss(made[0], model, outputs) if weighted else made[0]


def _joined(keyed: LossSums, others: LossSums) -> LossSums:
    correct = None if keyed.correct is None or others.correct is None else keyed.correct + others.correct
    return LossSums(keyed.loss + others.loss, keyed.count + others.count, correct, keyed)
