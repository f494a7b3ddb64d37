"""The loss of a language-model head from its hidden states, without the logits as a whole."""

from __future__ import annotations

import torch
from torch import Tensor

from lmtrain.objectives.base import IGNORED
from lmtrain.objectives.linear_cross_entropy.chunked import chunked
from lmtrain.objectives.linear_cross_entropy.kernel import DEFAULT, Kernel, LinearLoss, Problem, Terms
from lmtrain.objectives.linear_cross_entropy.libraries import liger_cannot, of_liger, of_torch, torch_cannot
from lmtrain.objectives.linear_cross_entropy.plain import plain


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    scale: float = 1.0,
    accuracy: bool = False,
    all_predicted: bool = False,
    kernel: Kernel = DEFAULT,
    dtype: torch.dtype = torch.float32,
) -> LinearLoss:
    """Σ wᵢ·((1 − ε)·nllᵢ + ε·mean over V of −log pᵢ + ζ·logsumexpᵢ²), over the positions that have a label.

    ``hidden`` (…, D), ``weight`` (V, D), ``bias`` (V,) or None, ``labels`` (…) int64 of the same leading
    shape, :data:`IGNORED` where nothing is predicted, ``weights`` (…) or None for 1 each;
    ε ``label_smoothing``, ζ ``z_loss``. The logits of a position h are, in this order,
    z = scale·(W·h + b) and, where there is a ``softcap`` c, c·tanh(z/c): Cohere multiplies by
    ``logit_scale``, Falcon-H1 by ``lm_head_multiplier``, Granite divides by ``logits_scaling``, Gemma caps.

    ``all_predicted``: no label is :data:`IGNORED`, and the caller knows; to look would mean to wait for a GPU.

    Under autocast the products are taken in its format, as ``F.linear`` does; else in that of ``hidden``,
    which must be that of ``weight``. Softmax, sums and the gradient of the weight are fp32 (fp64 for fp64
    inputs), the loss is summed in ``dtype``. Gradients reach ``hidden``, ``weight`` and ``bias``, once: a
    second backward pass, and a second derivative, raise :class:`RuntimeError` except with the kernel
    ``plain``. Where nothing is predicted the loss is 0 and the gradients are zeros.

    Raises :class:`ValueError` for shapes or formats that do not fit, :class:`IndexError` or
    :class:`RuntimeError` for a label outside the vocabulary.
    """
    _check(hidden, weight, bias, labels, weights)
    labels = labels.reshape(-1).to(hidden.device)
    hidden = hidden.reshape(-1, hidden.shape[-1])
    weights = None if weights is None else weights.detach().reshape(-1).to(hidden.device)
    if not all_predicted:
        predicted = labels.ne(IGNORED).nonzero().squeeze(-1)
        if predicted.shape[0] < labels.shape[0]:
            hidden, labels = hidden[predicted], labels[predicted]
            weights = None if weights is None else weights[predicted]
    count = torch.full((), labels.shape[0], device=hidden.device)  # torch.tensor would wait for a GPU
    if scale != 1.0:  # N·D products instead of N·V, in the graph, so that its gradient follows by itself
        hidden, bias = hidden * scale, None if bias is None else bias * scale
    compute = _compute_dtype(hidden, weight)
    exact = torch.float64 if compute is torch.float64 else torch.float32
    weights = None if weights is None else weights.to(exact)
    terms = Terms(label_smoothing, z_loss, softcap, accuracy)
    problem = Problem(hidden, weight, bias, labels, weights, terms, compute, dtype)
    loss, correct = _run(problem, kernel)
    weight_sum = count.to(dtype) if weights is None else weights.sum(dtype=dtype)
    return LinearLoss(loss, weight_sum, count, correct)


def _run(problem: Problem, kernel: Kernel) -> tuple[Tensor, Tensor | None]:
    """A library's kernel that cannot do what is asked leaves it to ``chunked``: evaluation asks for more."""
    if kernel.name == "plain" or (problem.compute is torch.float16 and torch.is_grad_enabled()):
        # Gradients in fp16 need the loss scale before they are made; those of a chunk are made before it is known.
        return plain(problem)
    if problem.labels.numel():
        if kernel.name == "torch" and torch_cannot(problem) is None:
            return of_torch(problem, kernel), None
        if kernel.name == "liger" and liger_cannot(problem) is None:
            return of_liger(problem), None
    if kernel.name in ("torch", "liger"):
        kernel = Kernel("chunked")
    return chunked(problem, kernel)


def _compute_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """The format of the products: autocast's where it is on and would touch them (it leaves fp64 alone)."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and torch.float64 not in (hidden.dtype, weight.dtype):
        return torch.get_autocast_dtype(device)
    if hidden.dtype != weight.dtype:
        raise ValueError(
            f"hidden states are {hidden.dtype} and the weight is {weight.dtype}; make them one, or autocast"
        )
    return hidden.dtype


def _check(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor | None) -> None:
    vocab, width = weight.shape
    if hidden.shape[-1] != width:
        raise ValueError(f"hidden states have {hidden.shape[-1]} values each, the weight takes {width}")
    if labels.shape != hidden.shape[:-1]:
        raise ValueError(f"labels {tuple(labels.shape)} for hidden states {tuple(hidden.shape)}")
    if weights is not None and weights.shape != labels.shape:
        raise ValueError(f"weights {tuple(weights.shape)} for labels {tuple(labels.shape)}")
    if bias is not None and bias.shape != (vocab,):
        raise ValueError(f"a bias {tuple(bias.shape)} for {vocab} words")
    if labels.is_floating_point():
        raise ValueError(f"labels are {labels.dtype}; they are ids, int64")
