"""Dropout of attention weights: it rules out the fast attention kernels, which never make those weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lmtrain.core.clock import now

# What the attention modules of transformers call it; the residual dropout beside it is resid_, out_ or output_dropout.
_NAMES = ("attn_dropout", "attention_dropout", "attn_drop", "dropout")
_OPTIONS = ("attn_pdrop", "attention_dropout", "attention_probs_dropout_prob", "attn_dropout")  # of configurations
_TRIES = 3  # the fastest counts
_WEIGHTS = 1 << 23  # of attention that are tried: 0.1 s with dropout on two cores


def attention_dropout(model: nn.Module) -> float:
    """The highest probability with which a module of ``model`` drops attention weights."""
    return max((_probability(module, name) for module, name in _places(model)), default=0.0)


def set_attention_dropout(model: nn.Module, probability: float) -> bool:
    """Set it in all modules of ``model`` and in its configuration; False where there is none to set."""
    places = list(_places(model))
    for module, name in places:
        value = getattr(module, name)
        if isinstance(value, nn.Dropout):
            value.p = probability
        else:
            setattr(module, name, probability)
    text = model.config.get_text_config()  # type: ignore[operator, union-attr]
    for name in _OPTIONS:
        if places and hasattr(text, name):
            setattr(text, name, probability)
    return bool(places)


def cost_of_attention_dropout(
    model: Any, batch: int, length: int, device: torch.device, dtype: torch.dtype, *, causal: bool
) -> tuple[float, float] | None:
    """Seconds that attention takes in a forward and backward pass of all layers, with its dropout and without it:
    measured on one layer, in some hundredths of a second. None where there is nothing to gain.

    ``causal``: each position looks back alone, of which the fast kernels make half the work."""
    text = model.config.get_text_config()
    probability = attention_dropout(model)
    heads, width, layers = (getattr(text, n, None) for n in ("num_attention_heads", "hidden_size", "num_hidden_layers"))
    if not (probability and heads and width and layers) or getattr(text, "_attn_implementation", "") != "sdpa":
        return None
    some = max(1, min(batch, _WEIGHTS // (heads * length**2)))  # of the examples; time goes with their number
    shape = (some, heads, length, getattr(text, "head_dim", None) or width // heads)
    query, key, value = (torch.ones(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3))

    def once(dropped: float) -> float:
        began = now(device)
        attend = nn.functional.scaled_dot_product_attention
        attend(query, key, value, dropout_p=dropped, is_causal=causal).sum().backward()
        return now(device) - began

    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        with_dropout, without = (min(once(p) for _ in range(_TRIES)) for p in (probability, 0.0))
    times = layers * batch / some
    return times * with_dropout, times * without


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for module in model.modules():
        if "attention" in type(module).__name__.lower():
            for name in _NAMES:
                if isinstance(getattr(module, name, None), float | int | nn.Dropout):
                    yield module, name


def _probability(module: nn.Module, name: str) -> float:
    value = getattr(module, name)
    return float(value.p if isinstance(value, nn.Dropout) else value)
