"""A sample of a run's shape, the comparison of a kernel with the plain formula on it, and a clock."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from lmtrain.core.clock import now
from lmtrain.objectives.linear_cross_entropy.kernel import PLAIN, Kernel, LinearLoss, Problem, Terms
from lmtrain.objectives.linear_cross_entropy.loss import linear_cross_entropy

BOUNDS: Final = {torch.float32: 5e-5, torch.bfloat16: 2e-2, torch.float64: 1e-12}
"""Largest difference from the plain formula, of the loss relative to it, of a gradient relative to its largest
value. A sum of V = 50,000 rounded fp32 numbers is off by about √V·2⁻²⁴ = 1.3e-5; a bf16 number is within
2⁻⁹ = 0.002 of what it stands for, and a gradient is a product of some of them."""
_TF32 = 5e-3  # on GPUs that drop bits of fp32 numbers, to 2⁻¹¹ (--tf32)

_PROVEN_ON = 40  # positions; more cost time and show nothing new
_PROOF_CHUNK = 16  # so that the proof has whole chunks and a ragged last one


@dataclass(frozen=True, slots=True)
class Sample:
    """Random operands of the real D and V."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    labels: Tensor
    weights: Tensor | None
    compute: torch.dtype
    terms: Terms

    @classmethod
    def draw(
        cls, positions: int, width: int, vocab: int, device: torch.device, compute: torch.dtype, terms: Terms,
        *, bias: bool, weighted: bool, seed: int, frozen: bool = False,
    ) -> Sample:  # fmt: skip
        """From ``seed`` alone, logits of standard deviation 2, as those of a model that has begun to learn.

        Of a ``frozen`` head only the hidden states want a gradient."""
        there: dict[str, Any] = {"generator": torch.Generator(device).manual_seed(seed), "device": device}
        exact = {**there, "dtype": torch.float64 if compute is torch.float64 else torch.float32}
        hidden = torch.randn(positions, width, **exact)
        weight = torch.randn(vocab, width, **exact).mul_(2 / width**0.5)
        labels = torch.randint(vocab, (positions,), **there)
        shift = torch.randn(vocab, **exact) if bias else None
        weights = torch.rand(positions, **exact) if weighted else None
        for operand in (hidden,) if frozen else (hidden, weight, shift):
            if operand is not None:
                operand.requires_grad_()
        return cls(hidden, weight, shift, labels, weights, compute, terms)

    def first(self, positions: int) -> Sample:
        weights = None if self.weights is None else self.weights[:positions]
        hidden = self.hidden.detach()[:positions].requires_grad_()
        return replace(self, hidden=hidden, labels=self.labels[:positions], weights=weights)

    def problem(self) -> Problem:
        return Problem(self.hidden, self.weight, self.bias, self.labels, self.weights, self.terms,
                       self.compute, torch.float32)  # fmt: skip

    def run(self, kernel: Kernel) -> LinearLoss:
        narrow = self.compute != self.hidden.dtype
        device = self.hidden.device.type
        with torch.autocast(device, self.compute) if narrow else nullcontext():
            terms = self.terms
            return linear_cross_entropy(
                self.hidden, self.weight, self.bias, self.labels, self.weights, kernel=kernel,
                label_smoothing=terms.label_smoothing, z_loss=terms.z_loss, softcap=terms.softcap,
            )  # fmt: skip

    def results(self, kernel: Kernel) -> dict[str, Tensor]:
        """The loss and every gradient, by name. Divided by 3 on the way, so that a lost factor shows."""
        operands = {"hidden states": self.hidden, "weight": self.weight, "bias": self.bias}
        given = {name: operand for name, operand in operands.items() if operand is not None and operand.requires_grad}
        loss = self.run(kernel).loss
        gradients = torch.autograd.grad(loss / 3, list(given.values()))
        return {"loss": loss.detach(), **{f"gradient of the {n}": g for n, g in zip(given, gradients, strict=True)}}

    def seconds(self, kernel: Kernel) -> float:
        """Forward and backward, once."""
        start = now(self.hidden.device)
        self.results(kernel)
        return now(self.hidden.device) - start


class Proof:
    """Compares kernels with the plain formula on the first positions of a sample."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample.first(_PROVEN_ON)
        self.expected = self.results(PLAIN)
        self._known: dict[Kernel, str | None] = {}

    def difference(self, kernel: Kernel) -> str | None:
        """What ``kernel`` gives otherwise than the plain formula, in words; None where it equals it within bounds."""
        if kernel.name == "chunked":
            kernel = replace(kernel, positions=_PROOF_CHUNK)  # what holds for a chunk holds for one of another size
        if kernel not in self._known:
            self._known[kernel] = self.compare(self.results(kernel))
        return self._known[kernel]

    def results(self, kernel: Kernel) -> dict[str, Tensor]:
        """Of a step, and of an evaluation, where a library's kernel may be left for ours."""
        with torch.no_grad():
            evaluated = self.sample.run(kernel).loss
        return {**self.sample.results(kernel), "loss without gradients": evaluated}

    def compare(self, found: Mapping[str, Tensor]) -> str | None:
        """The first of the results that is out of bounds, in words; None where none is."""
        bound = bound_of(self.sample.compute, self.sample.hidden.device)
        for name, value in self.expected.items():
            error = (found[name] - value).abs().max() / value.abs().max().clamp_min(torch.finfo(value.dtype).tiny)
            if not error <= bound:  # so that NaN is a difference too
                return f"its {name} differs by {float(error):.1e}, more than {bound:.0e}"
        return None


def bound_of(compute: torch.dtype, device: torch.device) -> float:
    """:data:`BOUNDS` for products in ``compute``, or what holds for TF32 where those are made in that."""
    products = torch.backends.cuda.matmul
    coarse = compute is torch.float32 and device.type == "cuda" and products.fp32_precision == "tf32"
    return _TF32 if coarse else BOUNDS[compute]
