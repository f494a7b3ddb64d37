"""Kernels of others, behind the same door, with what each of them cannot do."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

from lmtrain.objectives.linear_cross_entropy.kernel import Kernel, Problem


def of_torch(problem: Problem, kernel: Kernel) -> Tensor:
    """``torch.nn.functional.linear_cross_entropy`` (torch ≥ 2.13), in chunks of its own choice if need be."""
    options = torch.nn.LinearCrossEntropyOptions
    chunks = options() if kernel.positions is None else options(
        batch_chunk_size=kernel.positions, chunking_method=None)  # fmt: skip
    losses: Tensor = functional.linear_cross_entropy(
        problem.hidden.to(problem.compute),
        problem.weight.to(problem.compute),
        problem.labels,
        linear_bias=None if problem.bias is None else problem.bias.to(problem.compute),
        reduction="sum" if problem.weights is None else "none",
        options=chunks,
    )
    if problem.weights is not None:
        losses = losses * problem.weights
    return losses.sum(dtype=problem.total)


def of_liger(problem: Problem) -> Tensor:
    """Liger-Kernel's (Hsu et al., 2024, arXiv:2410.10989), sums of the gradients in fp32."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    loss: Tensor = liger_fused_linear_cross_entropy(
        problem.hidden.to(problem.compute),
        problem.weight.to(problem.compute),
        problem.labels,
        bias=None if problem.bias is None else problem.bias.to(problem.compute),
        lse_square_scale=problem.terms.z_loss,
        label_smoothing=problem.terms.label_smoothing,
        reduction="sum",
        softcap=problem.terms.softcap,
        accum_dtype=torch.float32,
    )
    return loss.to(problem.total)


def torch_cannot(problem: Problem) -> str | None:
    """Why PyTorch's kernel is no choice for this problem, or None."""
    if not hasattr(functional, "linear_cross_entropy"):
        return f"torch {torch.__version__} has none"
    if problem.compute != problem.exact:
        return "it returns the sum in the format of the products"
    if problem.terms.label_smoothing or problem.terms.z_loss or problem.terms.softcap is not None:
        return "it has neither label smoothing nor z-loss nor softcap in chunks"
    return "it does not count hits" if problem.terms.accuracy else None


def liger_cannot(problem: Problem) -> str | None:
    """Why Liger's kernel is no choice for this problem, or None."""
    if problem.hidden.device.type != "cuda":
        return "it needs a GPU"
    if find_spec("liger_kernel") is None:
        return "liger-kernel is not installed"
    if problem.weights is not None:
        return "it has no weights per position"
    return "it does not count hits" if problem.terms.accuracy else None
