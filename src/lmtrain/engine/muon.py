"""Muon for the hidden matrices, AdamW for everything else, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces the update of a matrix by the
nearest orthogonal one, so that all directions are learned at the same pace. It is meant for matrices inside the
layers; embeddings, the head, norms and biases stay with AdamW (Loshchilov and Hutter 2019). One optimizer object,
because schedules, checkpoints and the Trainer know one.

``torch.optim.Muon`` takes the matrices one by one and iterates in bf16, which a CPU without bf16 products does a
hundred times slower than fp32; here matrices of one shape go together and the format is that of the run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from lmtrain.config.muon import DEFAULTS, MuonArgs, is_muon
from lmtrain.models.sharding import cut_like, whole

# Quintic Newton–Schulz iteration: X ← (a + bG + cG²)X with G = XXᵀ, coefficients of the page above.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_TOGETHER = 1 << 24  # numbers in a product of several matrices: larger ones gain nothing and cost memory
_OBLONG = 2  # from this ratio of the sides on the iteration is cheaper over the smaller one alone


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The (nearly) nearest matrices whose singular values are all about 1 (0.7 to 1.2).

    ``matrices`` (N, rows, columns), multiplied together in ``dtype``; the same shape comes back. With sides D and rD
    a matrix costs 2D³ · min(10r + 5, 2r + 17) operations; the second, in fp32 only, for r ≥ 2.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # the iteration converges for spectral norms up to 1
    # Rounding is amplified by up to a⁵ where only the Gram matrix is iterated: harmless in fp32, not in bf16.
    oblong = x.shape[-1] >= _OBLONG * x.shape[-2] and dtype in (torch.float32, torch.float64)
    x = _by_gram_matrix(x) if oblong else _directly(x)
    return (x.mT if tall else x).to(matrices.dtype)


def _directly(x: Tensor) -> Tensor:
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x


def _by_gram_matrix(x: Tensor) -> Tensor:
    """The same with the long side touched twice: P = a + bG + cG² commutes with G, so G ← PGP and X ends as ∏P · X."""
    gram = x @ x.mT
    product = None
    for iteration in range(_ITERATIONS):
        step = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        step.diagonal(dim1=-2, dim2=-1).add_(_A)
        product = step if product is None else step @ product
        if iteration < _ITERATIONS - 1:
            gram = step @ gram @ step
    assert product is not None
    return product @ x


class Muon(torch.optim.Optimizer):
    """Muon on ``matrices``, AdamW on the rest.

    Args:
        matrices: (parameter, rows are outputs) for each hidden matrix. ``torch.nn.Linear`` stores (out, in), GPT-2's
            ``Conv1D`` (in, out): the step of a matrix is scaled by √max(1, out/in).
        decayed, plain: parameters for AdamW, with and without weight decay.
        lr: of Muon, in units of an orthogonal update; AdamW's is ``adam_ratio`` times that. Schedules scale both.
        momentum: Nesterov momentum of Muon.
        betas, eps: of AdamW.
        weight_decay: decoupled, per step times the group's learning rate.
        dtype: number format of the iteration.
    """

    def __init__(
        self,
        matrices: list[tuple[Tensor, bool]],
        decayed: list[Tensor],
        plain: list[Tensor],
        *,
        lr: float = DEFAULTS["learning_rate"],
        adam_ratio: float = MuonArgs.adam_ratio,
        momentum: float = MuonArgs.momentum,
        betas: tuple[float, float] = (0.9, DEFAULTS["adam_beta2"]),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._dtype = dtype
        # `fused` tells torch to keep the step counter beside the weights when a state is loaded.
        adam = {"kind": "adamw", "lr": lr * adam_ratio, "betas": betas, "eps": eps, "fused": True}
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
        by_shape: defaultdict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is not None:  # a matrix and its transpose cost the same, so they go together
                by_shape[tuple(sorted(weight.shape))].append(weight)
        for shape, weights in by_shape.items():
            together = max(1, _TOGETHER // math.prod(shape))
            for first in range(0, len(weights), together):
                self._orthogonal_step(weights[first : first + together], group)

    def _orthogonal_step(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients = self._nesterov(weights, group["momentum"])
        # An orthogonal matrix is one of the whole: sharded gradients are gathered, and each process finds the same.
        updates = orthogonalize(torch.stack([_wide(whole(gradient)) for gradient in gradients]), self._dtype)
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        for weight, update in zip(weights, updates, strict=True):
            outputs, inputs = weight.shape if group["rows_are_outputs"] else reversed(weight.shape)
            scale = math.sqrt(max(1.0, outputs / inputs))
            weight.add_(cut_like(update.mT if _is_tall(weight) else update, weight), alpha=-group["lr"] * scale)

    def _nesterov(self, weights: list[Tensor], momentum: float) -> list[Tensor]:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        averages = [self.state[weight]["momentum"] for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, averages, momentum))

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


def _is_tall(matrix: Tensor) -> bool:
    return matrix.shape[0] > matrix.shape[1]


def _wide(matrix: Tensor) -> Tensor:
    return matrix.mT if _is_tall(matrix) else matrix


def muon_for(model: torch.nn.Module, **settings: Any) -> Muon:
    """:class:`Muon` over a transformers model: which parameter goes where is read from the modules.

    Matrices of linear layers go to Muon, except the output head; embeddings and the head to AdamW with decay;
    vectors to AdamW without. ``settings`` are those of :class:`Muon`: ``lr`` (0.02), ``weight_decay`` (0), …. A module
    of one's own has to name its head by ``get_output_embeddings``, unless its weight is the embedding's.

    >>> LMTrainer(model, args, data, make_optimizer=muon_for)  # doctest: +SKIP
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
    matrices = list({p: (p, out) for p, out in matrices if kind[p] == "muon"}.values())  # layers may share theirs
    return Muon(matrices, [p for p in others if p.ndim >= 2], [p for p in others if p.ndim < 2], **settings)


def maker_of(training: Mapping[str, Any], precision: str) -> Callable[[torch.nn.Module], Muon] | None:
    """What makes the optimizer of a run with ``--optim muon`` from its model; None for every other optimizer.

    ``training`` holds the fields of ``TrainingArguments`` that the user set; ``precision`` is the run's (fp32, bf16 or
    fp16): in bf16 the iteration multiplies in bf16 too, for fp16 it would leave the format's range.
    """
    if not is_muon(training):
        return None
    given = {**DEFAULTS, **training}
    chosen = MuonArgs.parse(given.get("optim_args"))
    return partial(
        muon_for,
        lr=given["learning_rate"],
        adam_ratio=chosen.adam_ratio,
        momentum=chosen.momentum,
        betas=(given.get("adam_beta1", 0.9), given["adam_beta2"]),
        eps=given.get("adam_epsilon", 1e-8),
        weight_decay=given.get("weight_decay", 0.0),
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
    )
