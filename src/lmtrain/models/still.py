"""A model held still, so that two ways of running it can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lmtrain.models.sharding import gathered_dtype, is_sharded


def format_held(model: nn.Module) -> torch.dtype:
    """What a model computes in while it is held :func:`still`: the format of its weights, or in which sharded ones are
    gathered (then every process has to ask), but bf16 for fp32 ones where the attention kernel takes 16 bits alone."""
    dtype = gathered_dtype(model) if is_sharded(model) else next(model.parameters()).dtype
    kernel = getattr(getattr(model, "config", None), "_attn_implementation", None) or ""
    return torch.bfloat16 if "flash" in kernel and dtype is torch.float32 else dtype


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Without dropout, in :func:`format_held` without autocast's choices and without TF32; every module's mode is put
    back, whatever it was."""
    training = [(module, module.training) for module in model.modules()]
    weight, held = next(model.parameters()), format_held(model)
    model.eval()
    try:
        with _without_tf32(), torch.autocast(weight.device.type, torch.bfloat16, enabled=held is not weight.dtype):
            yield
    finally:
        for module, was in training:
            module.training = was


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Products of fp32 numbers with all their bits, on GPUs that were told to drop some (``--tf32``).

    By the API of torch 2.9, as transformers sets it: whoever asks by ``allow_tf32`` then gets a RuntimeError.
    """
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    if before != "tf32":
        yield
        return
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision = "none"  # as torch.backends.fp32_precision says, where that was where it came from
        if products.fp32_precision != before:
            products.fp32_precision = before
