"""Trained tensors that the loss depends on and no gradient reaches: a ``detach()`` or ``no_grad()`` too many.

Others get none by right: a pooler that the loss does not look at, experts that no token of the batch was sent to. They
are told apart by trying: the loss changes with the values of the first, and not with those of the second.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lmtrain.engine.trainer import LMTrainer

_LARGE = 1 << 20  # numbers: of these no copy is made where they can be turned round
_NOISE = 1e-5  # of the loss: what the order of sums may change on a GPU


def same_draws() -> None:
    """Call it before each pass that is to drop the same values and layers as another."""
    random.seed(0)
    torch.manual_seed(0)


def cut_off(trainer: LMTrainer, batch: dict[str, Any], names: Sequence[str], most: int) -> list[str]:
    """Those of the parameters ``names`` whose values change the loss of ``batch``, as in the pass after
    :func:`same_draws` in which they got no gradient; not more than ``most``.

    It takes two forward passes, one more where there are none, and for each that there is twice as many as it takes to
    find it by halving. Afterwards the weights are as they were, to the bit.
    """
    weights = dict(trainer.model.named_parameters())
    plain = _loss(trainer, batch)
    least = 4 * abs(_loss(trainer, batch) - plain) + _NOISE * abs(plain)
    suspected, found = [list(names)], list[str]()
    while suspected and len(found) < most:
        some = suspected.pop()
        with _otherwise([weights[name] for name in some]):
            changes = abs(_loss(trainer, batch) - plain) > least
        if changes and len(some) == 1:
            found += some
        elif changes:
            suspected += [some[len(some) // 2 :], some[: len(some) // 2]]
    return found


def _loss(trainer: LMTrainer, batch: dict[str, Any]) -> float:
    same_draws()
    with trainer.dropping(), trainer.accelerator.autocast():
        loss: Any = trainer.compute_loss(trainer.model, batch)
    return float(loss.detach())


@contextmanager
def _otherwise(weights: Sequence[Tensor]) -> Iterator[None]:
    """Give them other values of the same size meanwhile."""
    kept: list[tuple[Tensor, Tensor | None]] = []
    try:
        for weight in weights:
            data = weight.data
            if data.numel() > _LARGE and not torch.equal(turned := data.flip(-1), data):
                kept.append((data, None))
                data.copy_(turned)
            else:
                kept.append((data, data.clone()))
                data.add_(torch.randn_like(data) * (data.square().mean().sqrt() or 1.0))
        yield
    finally:
        for data, before in kept:
            data.copy_(data.flip(-1) if before is None else before)
