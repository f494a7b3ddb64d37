"""The formula as it is written, on all logits at once: what every other kernel has to equal."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lmtrain.objectives.linear_cross_entropy.kernel import Problem


def plain(problem: Problem) -> tuple[Tensor, Tensor | None]:
    """Weighted sum of the losses, in the graph, and the number of hits if asked for; both of shape ().

    Holds several tensors of N·V values.
    """
    terms = problem.terms
    with torch.autocast(problem.hidden.device.type, enabled=False):
        bias = None if problem.bias is None else problem.bias.to(problem.compute)
        logits = functional.linear(problem.hidden.to(problem.compute), problem.weight.to(problem.compute), bias)
        scores = logits.to(problem.exact)
        if terms.softcap is not None:
            scores = terms.softcap * torch.tanh(scores / terms.softcap)
        losses = functional.cross_entropy(
            scores, problem.labels, reduction="none", label_smoothing=terms.label_smoothing
        )
        if terms.z_loss:
            losses = losses + terms.z_loss * scores.logsumexp(-1).square()
        if problem.weights is not None:
            losses = losses * problem.weights
        correct = logits.detach().argmax(-1).eq(problem.labels).sum() if terms.accuracy else None
        return losses.sum(dtype=problem.total), correct
