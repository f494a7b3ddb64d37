"""One loss for every objective: sums over the predicted positions, divided once, by whoever knows the count.

Shapes: ``B`` examples, ``T`` positions, ``V`` vocabulary, ``N`` predicted positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lmtrain.objectives.base import IGNORED, Objective


@dataclass(frozen=True, slots=True)
class LossSums:
    """What a batch adds to a step or to an evaluation.

    ``loss`` is the sum over the predicted positions in nats, ``count`` (int64) their number, ``correct``
    (int64) how many of them have the label as the most likely token, or None where it was not asked for.
    """

    loss: Tensor
    count: Tensor
    correct: Tensor | None = None


def loss_sums(
    logits: Tensor,
    labels: Tensor,
    objective: Objective,
    *,
    label_smoothing: float = 0.0,
    accuracy: bool = False,
    dtype: torch.dtype = torch.float32,
) -> LossSums:
    """Cross-entropy of ``logits`` (B, T, V) with ``labels`` (B, T), summed.

    Computed in fp32 whatever the precision of the logits, summed in ``dtype``. ``label_smoothing`` ε mixes
    the label with the uniform distribution: (1 − ε)·nll + ε·mean over V of −log p, as ``transformers``
    does. Where nothing is predicted the sum is 0 and stays in the graph, so that every process has its
    gradients to reduce.
    """
    targets = objective.targets(labels).to(logits.device).flatten()
    scores = logits.flatten(0, -2)
    if not objective.shifted:  # most positions are not predicted: leave them out before they become fp32
        predicted = targets.ne(IGNORED).nonzero().squeeze(-1)
        scores, targets = scores[predicted], targets[predicted]
    losses = functional.cross_entropy(
        scores.float(), targets, ignore_index=IGNORED, reduction="none", label_smoothing=label_smoothing
    )
    correct = None
    if accuracy:
        correct = scores.detach().argmax(-1).eq(targets).sum()  # an ignored target equals no id
    return LossSums(losses.sum(dtype=dtype), targets.ne(IGNORED).sum(), correct)


def model_loss_sums(
    model: torch.nn.Module,
    batch: Mapping[str, Tensor],
    objective: Objective,
    *,
    label_smoothing: float = 0.0,
    accuracy: bool = False,
    dtype: torch.dtype = torch.float32,
) -> tuple[LossSums, Any]:
    """Run ``model`` on a batch without its labels and compare: the sums, and what the model returned.

    The trainer calls this and nothing else for the loss.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    outputs = model(**inputs)
    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
    sums = loss_sums(
        logits, batch["labels"], objective, label_smoothing=label_smoothing, accuracy=accuracy, dtype=dtype
    )
    return sums, outputs
