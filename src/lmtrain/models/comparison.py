"""Two models compared by what they compute: the logits (B, T, V) of a few rows of ids, in fp32."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lmtrain.models.frozen import casts_itself
from lmtrain.models.loading.configuration import max_positions
from lmtrain.models.loading.vocabulary import rows_of
from lmtrain.models.still import still

TEXT = "The fox, aged 3.14, ran:\n  naïve? “Yes” – 北京, привет, عربي 🙂 x_1 += 0xFF;\tend  "  # for tokenizers
_PROBE = (2, 24)  # B rows and T ids of each
_PLAIN = ("eager", "sdpa")  # kernels of attention that compute in fp32


def probe_ids(model: Any, tokenizer: Any | None = None) -> Tensor:
    """Ids (B, T): one row from the whole vocabulary, its last rows among them, and one of a text where there is a
    ``tokenizer``."""
    rows = rows_of(model.get_base_model() if hasattr(model, "get_base_model") else model)
    batch, length = _PROBE
    length = min(length, max_positions(model.config) or length)
    ids = torch.randint(0, rows, (batch, length), generator=torch.Generator().manual_seed(0))
    if tokenizer is not None:
        text = [i for i in tokenizer(TEXT).input_ids if i < rows][:length]
        ids[1, : len(text)] = torch.tensor(text, dtype=torch.long)
    ids[0, 0], ids[0, -1] = rows - 1, max(rows - 2, 0)
    return ids


def logits_of(model: Any, ids: Tensor) -> Tensor:
    """The logits (B, T, V) of ``ids``, fp32, on the CPU; the model is left as it was.

    Computed in fp32 without dropout, autocast or compiled kernels, whatever the weights are kept in.
    """
    device = next(model.parameters()).device
    with torch.no_grad(), _plainly(model), still(model):
        logits: Tensor = model(input_ids=ids.to(device)).logits
    return logits.float().cpu()


def difference(right: Tensor, other: Tensor) -> float:
    """The largest difference of a value, over the largest value of ``right``; what is no number equals its like."""
    if right.shape != other.shape:
        return float("inf")
    same = (right == other) | (right.isnan() & other.isnan())
    apart = (right - other).abs().nan_to_num(nan=float("inf")).masked_fill(same, 0.0)
    finite = right[right.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    return float(apart.max()) / max(largest, 1e-30)


def plain_attention(config: Any) -> str | None:
    """The kernel of attention to compare with: that of the configuration, where it computes in fp32."""
    own: str | None = getattr(config, "_attn_implementation", None)
    return own if own is None or own in _PLAIN else "sdpa"


@contextmanager
def attending_in_fp32(model: Any) -> Iterator[None]:
    """With :func:`plain_attention`: flash kernels refuse fp32."""
    config = getattr(model, "config", None)
    own, plain = getattr(config, "_attn_implementation", None), plain_attention(config)
    if plain != own:
        model.set_attn_implementation(plain)
    try:
        yield
    finally:
        if plain != own:
            model.set_attn_implementation(own)


@contextmanager
def _plainly(model: Any) -> Iterator[None]:
    """The model as it is defined: its forward without Accelerate's autocast, its layers uncompiled, in fp32."""
    with ExitStack() as stack:
        if "_original_forward" in vars(model):
            prepared, model.forward = model.forward, model._original_forward
            stack.callback(setattr, model, "forward", prepared)
        stack.enter_context(attending_in_fp32(model))
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_in_fp32(model))
        yield


@contextmanager
def _in_fp32(model: nn.Module) -> Iterator[None]:
    """Weights of fewer bits as fp32 meanwhile, but for layers that cast themselves; takes the memory of those."""
    kept: list[tuple[nn.Parameter, Tensor]] = []
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            if weight.dtype in (torch.bfloat16, torch.float16) and not casts_itself(module):
                kept.append((weight, weight.data))
                weight.data = weight.data.float()
    try:
        yield
    finally:
        for weight, data in kept:
            weight.data = data


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights to ``dtype``, and them alone: tables that a model works out for itself, such as the
    frequencies of rotary positions, are not stored and stay exact."""
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)
