"""Dropout on the CPU with sixteen random bits a value instead of one random number.

torch draws a double precision number for every value, one after another on a single core; for attention weights that
takes longer than the attention. Here the same generator fills memory with bits, sixteen a value: which values are
dropped is another draw from the same distribution, as with another seed. The probability is rounded to 1/65,536, and
what remains is scaled by the rounded one, so that the mean stays exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmtrain.models.attention_dropout import attention_dropout

_LEVELS: Final = 1 << 16
_FEW: Final = 1 << 12  # values for which torch's own way is as fast


class _Dropout(torch.autograd.Function):
    """x·kept / (1 − p), as ``torch.nn.functional.dropout``; a byte a value is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, level: int) -> Tensor:
        kept = _kept(values.shape, level)
        ctx.save_for_backward(kept)
        ctx.scale = _LEVELS / (_LEVELS - level)
        return (values * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradients[0] * kept).mul_(ctx.scale), None


def _kept(shape: torch.Size, level: int) -> Tensor:
    """uint8 of ``shape``: 0 with a probability of ``level`` / 65,536, else 1."""
    count = shape.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    bits = words.view(torch.int16)[:count].view(shape)
    return bits.ge(level - _LEVELS // 2).view(torch.uint8)


def fast_dropout(values: Tensor, probability: float) -> Tensor:
    """``values`` with each dropped with that probability, for training on the CPU; differentiable."""
    level = round(probability * _LEVELS)
    return values if level == 0 else _Dropout.apply(values, level)


def attention_with_dropout(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``torch.nn.functional.scaled_dot_product_attention`` with :func:`fast_dropout` of the attention weights.

    Shapes (B, H, T, D), masks that broadcast to (B, H, T, S), True or 0 where attention may look.
    """
    if enable_gqa:
        copies = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(copies, -3), value.repeat_interleave(copies, -3)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    looks = None
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            looks = attn_mask.any(-1, keepdim=True)
            lowest = torch.finfo(scores.dtype).min  # of -inf alone a softmax is NaN
            attn_mask = torch.zeros(attn_mask.shape, dtype=scores.dtype).masked_fill_(~attn_mask, lowest)
        scores = scores + attn_mask
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    found = fast_dropout(weights, dropout_p) @ value
    # What may look nowhere, as padding in front of a row, finds nothing.
    return found if looks is None or bool(looks.all()) else found * looks


def drops_on_cpu(model: nn.Module) -> bool:
    """Whether a training pass of ``model`` drops anything, on the CPU."""
    modules = any(isinstance(module, nn.Dropout) and 0 < module.p < 1 for module in model.modules())
    return next(model.parameters()).device.type == "cpu" and (modules or attention_dropout(model) > 0)


@contextmanager
def dropping_fast(*, trying: bool = False) -> Iterator[None]:
    """Inside, dropout on the CPU is :func:`fast_dropout`, whichever model asks for it.

    The two functions of ``torch.nn.functional`` that drop values are replaced meanwhile, for the whole process. (A mode
    of torch's does not reach into a backward pass, where checkpointed parts of the forward pass are run again.) With
    ``trying`` attention takes the way around the fast kernels even where nothing is dropped, so that it can be compared
    with them.
    """
    dropout, attention = functional.dropout, functional.scaled_dot_product_attention

    def drop(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if training and not inplace and 0 < p < 1 and input.device.type == "cpu" and input.numel() >= _FEW:
            return fast_dropout(input, p)
        return dropout(input, p, training, inplace)

    def attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        dropped = args[1] if len(args) > 1 else kwargs.get("dropout_p", 0.0)
        if (0 < dropped < 1 or trying) and query.device.type == "cpu":
            return attention_with_dropout(query, key, value, *args, **kwargs)
        return attention(query, key, value, *args, **kwargs)

    functional.dropout, functional.scaled_dot_product_attention = drop, attend
    try:
        yield
    finally:
        functional.dropout, functional.scaled_dot_product_attention = dropout, attention
