"""The weights of a model reloaded, compared with those it was saved from: to the bit, by name, and which are one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lmtrain.core.errors import OwnResultWrong, one_line

_UNUSED = ".original_module."  # what PEFT keeps of a layer that is trained whole


def compare_tensors(right: Mapping[str, Tensor], again: Any, grown: Mapping[str, int]) -> int:
    """Compare a state dictionary with that of the model ``again``, to the bit, in the format of ``right``; how many.

    ``grown`` are :func:`grown_tables`. Raises :class:`OwnResultWrong` with the first that differs.
    """
    mine, other = (
        {name: value for name, value in state.items() if _UNUSED not in name} for state in (right, again.state_dict())
    )
    if lost := sorted(mine.keys() ^ other.keys()):
        where = "is missing" if lost[0] in mine else "is new"
        raise OwnResultWrong(differs(f"{len(lost)} of its tensors differ by name ({lost[0]} {where})"))
    for name, value in mine.items():
        found = other[name].to(value.dtype)
        if name in grown:
            value, found = value[: grown[name]], found[: grown[name]]
        if not equal(value, found):
            raise OwnResultWrong(differs(f"the tensor {name} has other values"))
    return len(mine)


def grown_tables(model: Any) -> dict[str, int]:
    """Tables whose rows from a number on are an adapter's: those that lie beneath them were drawn and are not used."""
    found = {}
    for name, module in model.named_modules():
        indices = getattr(module, "token_indices", None)
        if isinstance(indices, dict) and hasattr(module, "base_layer"):
            rows = [row for chosen in indices.values() for row in chosen]
            found[f"{name}.base_layer.weight"] = min(rows)
    return found


def tied(model: Any) -> set[frozenset[str]]:
    """The names of weights that are one."""
    names: dict[int, set[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        if _UNUSED not in name:
            names.setdefault(id(weight), set()).add(name)
    return {frozenset(group) for group in names.values() if len(group) > 1}


def low_weights(model: Any) -> dict[str, Tensor]:
    """The weights that are kept in 16 bits."""
    low = (torch.bfloat16, torch.float16)
    return {name: weight for name, weight in model.named_parameters() if weight.dtype in low}


@contextmanager
def rounded_like(again: Any, model: Any) -> Iterator[None]:
    """The weights of ``again`` as exact as those of ``model`` are, meanwhile."""
    weights = dict(again.named_parameters())
    kept = {name: weights[name].data for name in low_weights(model)}
    for name, weight in low_weights(model).items():
        weights[name].data = kept[name].to(weight.dtype).float()
    try:
        yield
    finally:
        for name, data in kept.items():
            weights[name].data = data


def equal(right: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values, wherever they lie; what is no number equals its like."""
    other = other.to(right.device)
    if right.shape != other.shape or right.dtype != other.dtype:
        return False
    return torch.equal(right, other) or bool(((right == other) | ((right != right) & (other != other))).all())


def differs(how: str) -> str:
    """What to say of an export that is wrong."""
    return f"the exported model is not the one that was trained: {how}"


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Whatever a library finds wrong with what was written is our mistake; a lack of memory is not."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {one_line(error)[:300]}"
        raise OwnResultWrong(differs(f"{what} cannot be loaded ({why})")) from error
