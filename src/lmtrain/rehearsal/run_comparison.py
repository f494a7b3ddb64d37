"""Two runs beside each other, to the bit: what they logged, and tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmtrain.core.console import counted

_WORDS = {
    "loss": "losses", "learning_rate": "learning rates", "grad_norm": "gradient norms", "tokens": "tokens read",
    "eval_loss": "evaluation losses",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One thing compared: ``what`` it is, over how many values (``extent``), and the first difference or None."""

    what: str
    extent: str
    difference: str | None


def compare_logged(
    name: str, kind: str, straight: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]
) -> Row | None:
    """The values called ``name`` in the events of a ``kind``, by step; None where neither run logged it.

    Each record of ``other`` has to equal ``straight``'s of that step, also where a step was made twice, and no step may
    be missing.
    """
    wanted = {event["step"]: event[name] for event in straight if event["event"] == kind and name in event}
    seen = [(event["step"], event[name]) for event in other if event["event"] == kind and name in event]
    if not wanted and not seen:
        return None
    unlike = ((step, value) for step, value in seen if wanted.get(step) != value)
    found = next((f"step {step}: {wanted.get(step, 'nothing')} and {value}" for step, value in unlike), None)
    missing = sorted(wanted.keys() - {step for step, _ in seen})
    if found is None and missing:
        found = f"step {missing[0]}: {wanted[missing[0]]} and nothing"
    return Row(_WORDS.get(name, name), counted(len(wanted), "step"), found)


def compare_tensors(what: str, straight: Mapping[str, Any], other: Mapping[str, Any]) -> Row:
    """Tensors by name, to the bit: -0 is not 0 here, and nan equals itself."""
    extent = counted(sum(value.numel() for value in straight.values() if isinstance(value, Tensor)), "number")
    for name in sorted(straight.keys() | other.keys()):
        one, two = straight.get(name), other.get(name)
        if one is None or two is None:
            return Row(what, extent, f"{name}: only in the {'straight' if two is None else 'resumed'} run")
        if isinstance(one, Tensor) and isinstance(two, Tensor):
            if difference := _difference(one, two):
                return Row(what, extent, f"{name}: {difference}")
        elif one != two:
            return Row(what, extent, f"{name}: {one} and {two}")
    return Row(what, extent, None)


def _difference(one: Tensor, two: Tensor) -> str | None:
    if one.dtype != two.dtype or one.shape != two.shape:
        return f"{one.dtype} {tuple(one.shape)} and {two.dtype} {tuple(two.shape)}"
    if not one.numel():
        return None
    differs = (_bits(one) != _bits(two)).view(one.numel(), -1).any(-1)
    if not differs.any():
        return None
    at = int(differs.nonzero()[0])
    values = " and ".join(str(tensor.flatten()[at].item()) for tensor in (one, two))
    return f"{int(differs.sum()):,} of {counted(one.numel(), 'number')}, the first {values}"


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)
