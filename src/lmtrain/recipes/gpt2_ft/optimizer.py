"""Adam as the original has it: decay after the update, the bias corrected only when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import nn

_NOT_DECAYED = ("bias", "layer_norm.weight")


class DecayAfterAdam(torch.optim.Optimizer):
    """m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p − s·m/(√v + ε), then p ← p − lr·λ·p.

    s is lr, or lr·√(1−β₂ᵗ)/(1−β₁ᵗ) with ``correct_bias``: ε is added before the correction, which
    :class:`torch.optim.AdamW` does after it, and there the decay comes first. As in microsoft/LoRA at c4593f0,
    ``examples/NLG/src/optimizer.py`` (Kingma and Ba 2015; Loshchilov and Hutter 2019). Weights without a gradient are
    not touched, by decay neither. While ``withheld``, :meth:`step` does nothing.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = False,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "correct_bias": correct_bias}
        super().__init__(params, settings)
        self.withheld = False

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self.withheld:
            for group in self.param_groups:
                self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {"step": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
            self.state[weight]["step"] += 1
        gradients = [weight.grad for weight in weights]
        means = [self.state[weight]["mean"] for weight in weights]
        squares = [self.state[weight]["square"] for weight in weights]
        first, second = group["betas"]
        torch._foreach_mul_(means, first)
        torch._foreach_add_(means, gradients, alpha=1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - second)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["eps"])
        sizes = [-self._size(group, self.state[weight]["step"]) for weight in weights]
        torch._foreach_addcdiv_(weights, means, roots, sizes)
        if group["weight_decay"] > 0:
            torch._foreach_add_(weights, weights, alpha=-group["lr"] * group["weight_decay"])

    @staticmethod
    def _size(group: dict[str, Any], step: int) -> float:
        size: float = group["lr"]
        if group["correct_bias"]:
            first, second = group["betas"]
            size *= math.sqrt(1 - second**step) / (1 - first**step)
        return size


def groups(model: nn.Module, *, no_decay_bias: bool) -> list[dict[str, Any]]:
    """The weights that are trained; with ``no_decay_bias`` biases in a group without decay.

    By names, as the original takes them: it also spares ``layer_norm.weight``, which no weight of GPT-2 is called
    (they are ``ln_1``, ``ln_2`` and ``ln_f``), so those are decayed.
    """
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if not no_decay_bias:
        return [{"params": [weight for _, weight in trained]}]
    spared = [any(part in name for part in _NOT_DECAYED) for name, _ in trained]
    decayed = {"params": [weight for (_, weight), spare in zip(trained, spared, strict=True) if not spare]}
    others = {"params": [weight for (_, weight), spare in zip(trained, spared, strict=True) if spare]}
    return [decayed, {**others, "weight_decay": 0.0}]
