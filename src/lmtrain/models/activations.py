"""Activations that are spelled out in Python, in one kernel."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

Replaced = Sequence[tuple[nn.Module, str, nn.Module]]  # parent, name there, what stood there
_SPELLED_OUT = ("NewGELUActivation",)  # GPT-2's and GPT-J's: eight passes over a layer's widest tensor
_STOOD_HERE = "stood_here"


def fuse_activations(model: nn.Module) -> Replaced:
    """Put torch's own kernel in the place of a GELU written as 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))).

    The same formula (Hendrycks and Gimpel, 2016, arXiv:1606.08415), so equal but for rounding; no weights and no
    configuration change. Returns what is replaced now, for :func:`put_back`; what stood there is kept too, so that
    :func:`spell_out` can tell torch's kernel from a model's own.
    """
    spell_out(model)
    replaced = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child).__name__ in _SPELLED_OUT
    ]
    for parent, name, child in replaced:
        fused = nn.GELU(approximate="tanh")
        fused.__dict__[_STOOD_HERE] = child  # no part of the model
        setattr(parent, name, fused)
    return replaced


def is_fused(model: nn.Module) -> bool:
    """Whether no activation is spelled out."""
    return not any(type(module).__name__ in _SPELLED_OUT for module in model.modules())


def spell_out(model: nn.Module) -> None:
    """Undo :func:`fuse_activations`, whoever called it: the model is as its class makes it."""
    put_back(
        [
            (parent, name, child.__dict__[_STOOD_HERE])
            for parent in model.modules()
            for name, child in parent.named_children()
            if _STOOD_HERE in child.__dict__
        ]
    )


def put_back(replaced: Replaced) -> None:
    """Undo :func:`fuse_activations`."""
    for parent, name, child in replaced:
        setattr(parent, name, child)
