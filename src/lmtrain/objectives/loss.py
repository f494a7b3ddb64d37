"""One loss for every objective: sums over the predicted positions, divided once, by whoever knows the count.

Shapes: ``B`` examples, ``T`` positions, ``V`` vocabulary, ``N`` predicted positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lmtrain.objectives.base import IGNORED, KEYS, Objective, inputs_of


@dataclass(frozen=True, slots=True)
class LossSums:
    """What a batch adds to a step or to an evaluation.

    ``loss`` is the sum over the predicted positions in nats, ``count`` (int64) their number, ``correct``
    (int64) how many of them have the label as the most likely token, or None where it was not asked for.
    Weights are in ``loss`` alone: ``count`` is never weighted, since dividing by the sum of weights would cancel
    what they have in common. ``keyed``: of these, the sums over examples that hold a key token.
    """

    loss: Tensor
    count: Tensor
    correct: Tensor | None = None
    keyed: LossSums | None = None


def loss_sums(
    logits: Tensor,
    labels: Tensor,
    objective: Objective,
    *,
    weights: Tensor | None = None,
    keyed: Tensor | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    accuracy: bool = False,
    dtype: torch.dtype = torch.float32,
) -> LossSums:
    """Cross-entropy of ``logits`` (B, T, V) with ``labels`` (B, T), summed.

    ``weights`` and ``keyed`` (B, T), aligned with the labels: what each loss is multiplied by, and which of them
    (bool) are summed apart too.

    Computed in fp32 whatever the precision of the logits, summed in ``dtype``. ``label_smoothing`` ε mixes
    the label with the uniform distribution: (1 − ε)·nll + ε·mean over V of −log p, as ``transformers``
    does; ``z_loss`` ζ adds ζ·logsumexp² (PaLM, Chowdhery et al., 2022, section 5). Where nothing is predicted
    the sum is 0 and stays in the graph, so that every process has its gradients to reduce.
    """
    targets = objective.targets(labels).to(logits.device).flatten()
    scores = logits.flatten(0, -2)
    factors, apart = (
        None if values is None else objective.at_targets(values, 0).to(logits.device).flatten()
        for values in (weights, keyed)
    )
    if not objective.shifted:  # most positions are not predicted: leave them out before they become fp32
        predicted = targets.ne(IGNORED).nonzero().squeeze(-1)
        scores, targets = scores[predicted], targets[predicted]
        factors, apart = (None if values is None else values[predicted] for values in (factors, apart))
    losses = functional.cross_entropy(
        scores.float(), targets, ignore_index=IGNORED, reduction="none", label_smoothing=label_smoothing
    )
    if z_loss:
        losses = losses + z_loss * scores.float().logsumexp(-1).square() * targets.ne(IGNORED)
    if factors is not None:
        losses = losses * factors
    hits = None
    if accuracy:
        hits = scores.detach().argmax(-1).eq(targets)  # an ignored target equals no id

    def summed(chosen: Tensor | None = None) -> LossSums:
        own, at, right = ((v if chosen is None or v is None else v[chosen]) for v in (losses, targets, hits))
        assert own is not None and at is not None
        return LossSums(own.sum(dtype=dtype), at.ne(IGNORED).sum(), None if right is None else right.sum())

    whole = summed()
    return whole if apart is None else replace(whole, keyed=summed(apart))


def model_loss_sums(
    model: torch.nn.Module,
    batch: Mapping[str, Tensor],
    objective: Objective,
    *,
    weighted: bool = True,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    accuracy: bool = False,
    dtype: torch.dtype = torch.float32,
) -> tuple[LossSums, Any]:
    """Run ``model`` on a batch without its labels and compare: the sums, and what the model returned.

    ``weighted``: as training has them, with the objective's weights and a router's loss; without, examples with key
    tokens apart.
    """
    outputs = model(**inputs_of(batch))
    sums = loss_sums(
        logits_in(outputs), batch["labels"], objective,
        weights=objective.weights(batch) if weighted else None, keyed=None if weighted else keyed_in(batch),
        label_smoothing=label_smoothing, z_loss=z_loss, accuracy=accuracy, dtype=dtype,
    )  # fmt: skip
    return with_router_loss(sums, model, outputs) if weighted else sums, outputs


def logits_in(outputs: Any) -> Tensor:
    """The logits (B, T, V) in what a model returned without labels."""
    logits: Tensor = outputs["logits"] if isinstance(outputs, Mapping) else outputs
    return logits if isinstance(logits, Tensor) else logits[0]


def with_router_loss(sums: LossSums, model: torch.nn.Module, outputs: Any) -> LossSums:
    """``sums`` of a training pass and, of a mixture of experts whose configuration asks for it
    (``output_router_logits``), the loss that keeps its router from always choosing the same experts.

    It is a mean over the batch, so it counts once for each predicted position.
    """
    balance = outputs.get("aux_loss") if isinstance(outputs, Mapping) else None
    if balance is None:
        return sums
    whole = getattr(model, "module", model)  # inside DistributedDataParallel
    share = getattr(whole, "router_aux_loss_coef", None) or getattr(whole, "aux_loss_coef", 0.0)  # JetMoE's name
    return replace(sums, loss=sums.loss + share * balance * sums.count)


def keyed_in(batch: Mapping[str, Tensor]) -> Tensor | None:
    """(B, T) bool: where the example of a position holds a key token; None where the objective looks for none."""
    return batch[KEYS].gt(0) if KEYS in batch else None
