"""Muon for the hidden matrices, AdamW for everything else, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces the update of a matrix by the
nearest orthogonal one, so that all directions are learned at the same pace. It is meant for matrices inside the
layers; embeddings, the head, norms and biases stay with AdamW (Loshchilov and Hutter 2019). One optimizer object,
because schedules, checkpoints and the Trainer know one.

``torch.optim.Muon`` iterates in bf16, which a CPU without bf16 products does a hundred times slower than fp32
(measured: 109 against 1,720 tokens/s of the demo's model on an AVX2 machine); here the format is a choice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

# Quintic Newton–Schulz iteration: X ← aX + b(XXᵀ)X + c(XXᵀ)²X, coefficients of the page above.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The (nearly) nearest matrices whose singular values are all about 1 (0.7 to 1.2).

    ``matrices`` (N, rows, columns); the same shape comes back. Cost: ten products with the smaller side squared each,
    on top of the step; those of one shape are multiplied together.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # the iteration converges for spectral norms up to 1
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Muon on ``matrices``, AdamW on the rest.

    Args:
        matrices: (parameter, rows are outputs) for each hidden matrix. ``torch.nn.Linear`` stores (out, in), GPT-2's
            ``Conv1D`` (in, out): the step of a matrix is scaled by √max(1, out/in).
        decayed, plain: parameters for AdamW, with and without weight decay.
        lr: of Muon, in units of an orthogonal update; ``adam_lr`` is AdamW's.
        momentum: Nesterov momentum of Muon.
        dtype: number format of the iteration.
    """

    def __init__(
        self,
        matrices: list[tuple[Tensor, bool]],
        decayed: list[Tensor],
        plain: list[Tensor],
        *,
        lr: float = 0.02,
        adam_lr: float = 4e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._dtype = dtype
        adam = {"kind": "adamw", "lr": adam_lr, "betas": betas, "eps": eps}
        groups: list[dict[str, Any]] = [
            {"kind": "muon", "params": [p for p, rows_out in matrices if rows_out == out], "rows_are_outputs": out,
             "lr": lr, "momentum": momentum, "weight_decay": weight_decay}
            for out in (True, False)
        ]  # fmt: skip
        groups.append({**adam, "params": decayed, "weight_decay": weight_decay})
        groups.append({**adam, "params": plain, "weight_decay": 0.0})
        super().__init__([group for group in groups if group["params"]], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["kind"] == "muon":
                self._muon(group)
            else:
                self._adamw(group)
        return loss

    def _muon(self, group: dict[str, Any]) -> None:
        by_shape: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is not None:
                by_shape[weight.shape].append(weight)
        for shape, weights in by_shape.items():
            updates = orthogonalize(torch.stack([self._nesterov(w, group["momentum"]) for w in weights]), self._dtype)
            outputs, inputs = shape if group["rows_are_outputs"] else reversed(shape)
            scale = math.sqrt(max(1.0, outputs / inputs))
            for weight, update in zip(weights, updates, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * scale)

    def _nesterov(self, weight: Tensor, momentum: float) -> Tensor:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        average = state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum)

    def _adamw(self, group: dict[str, Any]) -> None:
        weights = [p for p in group["params"] if p.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {
                    "step": torch.zeros((), dtype=torch.float32, device=weight.device),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        states = [self.state[p] for p in weights]
        adamw(
            weights, [p.grad for p in weights],
            [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states], [], [s["step"] for s in states],
            fused=True, amsgrad=False, beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"],
            weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip


def muon_for(model: torch.nn.Module, **settings: Any) -> Muon:
    """:class:`Muon` over a transformers model: which parameter goes where is read from the modules.

    Matrices of linear layers go to Muon, except the output head; embeddings and the head to AdamW with decay;
    vectors to AdamW without.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    matrices: list[tuple[Tensor, bool]] = []
    kind: dict[Tensor, str] = {}
    for module in model.modules():
        is_linear = isinstance(module, torch.nn.Linear)
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or not weight.requires_grad:
            continue
        if (is_linear or type(module).__name__ == "Conv1D") and module is not head:
            kind.setdefault(weight, "muon")
            matrices.append((weight, is_linear))
        elif isinstance(module, torch.nn.Embedding) or module is head:
            kind[weight] = "decayed"  # a tied head is the embedding
    others = [p for p in model.parameters() if p.requires_grad and kind.get(p) != "muon"]
    matrices = [(p, out) for p, out in matrices if kind[p] == "muon"]
    return Muon(matrices, [p for p in others if p.ndim >= 2], [p for p in others if p.ndim < 2], **settings)
