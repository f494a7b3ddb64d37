"""Dropout wherever a model has it: one probability for all."""

from __future__ import annotations

from typing import Any

from torch import nn

_LAYERS = ("layerdrop", "layer_drop")  # leaves out whole layers, which is something else


def set_dropout(model: nn.Module, probability: float) -> bool:
    """Set the probability of every dropout of ``model``, in its modules and its configuration; whether it has any.

    Modules keep it as an ``nn.Dropout`` or as a number that they hand to ``torch.nn.functional.dropout``.
    """
    found = False
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p, found = probability, True
        for name, value in list(vars(module).items()):
            if _is_dropout(name, value):
                setattr(module, name, probability)
                found = True
    text: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    for name, value in list(text.to_dict().items()):
        if _is_dropout(name, value) or (name == "classifier_dropout" and value is not None):
            setattr(text, name, probability)
    return found


def drops(model: nn.Module) -> bool:
    """Whether a training pass of ``model`` drops anything."""
    kept = ((module, name, value) for module in model.modules() for name, value in vars(module).items())
    return any(
        value > 0
        for module, name, value in kept
        if _is_dropout(name, value) or (isinstance(module, nn.Dropout) and name == "p")
    )


def _is_dropout(name: str, value: Any) -> bool:
    called = "dropout" in name or name.endswith(("pdrop", "_drop"))
    return called and not any(word in name for word in _LAYERS) and type(value) in (float, int)
