"""The repeated layers of a model, and compiling them in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_COMPILED_HERE = "compiled_here"


def repeated_layers(model: nn.Module) -> list[nn.Module]:
    """The longest row of modules of one class: a transformer's layers. Empty where there is none."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    rows = [row for row in lists if row and all(type(module) is type(row[0]) for module in row)]
    return max(rows, key=lambda row: (len(row), sum(p.numel() for p in row[0].parameters())), default=[])


def compile_layers(model: nn.Module) -> None:
    """Compile every repeated layer, in place, that is not compiled yet: names and state stay as they are.

    One layer is compiled and its code serves them all, which takes a fraction of the time that a whole model takes
    (https://docs.pytorch.org/tutorials/recipes/regional_compilation.html).
    """
    for layer in repeated_layers(model):
        if layer._compiled_call_impl is None:
            layer.compile(dynamic=False)
            setattr(layer._compiled_call_impl, _COMPILED_HERE, True)


def leave_uncompiled(model: nn.Module) -> None:
    """Undo :func:`compile_layers`; what someone compiled otherwise stays so."""
    for layer in repeated_layers(model):
        if hasattr(layer._compiled_call_impl, _COMPILED_HERE):
            layer._compiled_call_impl = None


def has_compiled_layers(model: nn.Module) -> bool:
    """Whether one of them is compiled, by :func:`compile_layers` or by whoever made the model."""
    return any(layer._compiled_call_impl is not None for layer in repeated_layers(model))


@contextmanager
def no_more_compiling() -> Iterator[None]:
    """Whatever comes in another shape than what was compiled (a last, short batch; an evaluation) runs as it is: to
    compile for it would take longer than it does."""
    with torch.compiler.set_stance("eager_on_recompile"):
        yield
