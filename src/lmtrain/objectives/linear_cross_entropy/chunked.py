"""Some positions at a time, and their gradients at once: the logits (N, V) never exist as a whole.

The gradient of the loss with respect to the logits needs nothing from outside but a factor, so it is made in
the forward pass, and multiplied into the gradients of hidden states, weight and bias there and then; the
backward pass only applies the factor. Three products of 2·N·D·V operations, as the plain way has, and none of
its five passes over N·V values in main memory. What needs room beside the logits (the fp32 of bf16 ones, tanh)
is made of a few rows at a time, in a processor's cache: on one core in bf16 the passes between the products then
take 0.4 of their time. The idea is that of Liger-Kernel (Hsu et al., 2024, arXiv:2410.10989) and of Wijmans et
al., 2024, arXiv:2411.09009.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lmtrain.objectives.linear_cross_entropy.compiled import compiled_rows
from lmtrain.objectives.linear_cross_entropy.kernel import Kernel, Problem, rows_at_once
from lmtrain.objectives.linear_cross_entropy.rows import eager_rows, leading


def chunked(problem: Problem, kernel: Kernel) -> tuple[Tensor, Tensor | None]:
    """Weighted sum of the losses, in the graph, and the number of hits if asked for; both of shape ()."""
    inputs = (problem.hidden, problem.weight, problem.bias)
    wanted = tuple(torch.is_grad_enabled() and t is not None and t.requires_grad for t in inputs)
    device = problem.hidden.device.type
    with torch.no_grad(), torch.autocast(device, enabled=False):
        found = _Pass(problem, kernel, wanted).run()
    if any(wanted):
        found.loss = _WithGradients.apply(found.loss, found.gradients, *inputs)
    return found.loss, found.correct


@dataclass(slots=True)
class _Found:
    loss: Tensor
    correct: Tensor | None
    gradients: list[Tensor | None] = field(default_factory=list)


class _WithGradients(torch.autograd.Function):
    """Puts a loss whose gradients are already known into the graph."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], *inputs: Tensor | None) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # which it is here only with create_graph=True
            raise RuntimeError(
                "linear_cross_entropy: its gradients cannot be differentiated again (create_graph=True); "
                "use the kernel 'plain', whose can"
            )
        # In place, and let go here: whoever adds up gradients can then take these without a copy of (V, D) values.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError(
                "linear_cross_entropy: a second backward pass through the same loss; its gradients were made in "
                "the forward pass and are gone with the first. Compute the loss again, or use the kernel 'plain'"
            )
        return None, None, *(None if g is None else g.mul_(factor) for g in gradients)


class _Pass:
    """One pass over the positions: the operands, the buffers that all chunks share, and the sums so far."""

    def __init__(self, problem: Problem, kernel: Kernel, wanted: tuple[bool, ...]) -> None:
        self.problem = problem
        self.kernel = kernel
        self.differentiate = any(wanted)
        self.hidden = problem.hidden.to(problem.compute).contiguous()
        self.weight = problem.weight.to(problem.compute)
        self.bias = None if problem.bias is None else problem.bias.to(problem.compute)
        count, vocab = self.hidden.shape[0], self.weight.shape[0]
        self.rows = kernel.rows(vocab, self.hidden.device)
        if kernel.name != "compiled":
            self.rows = min(self.rows, max(count, 1))  # a compiled chunk keeps its size: another would be compiled anew
        # Of a chunk laid out as (V, rows) a few rows are nowhere together; and in their own place, the logits of a few
        # rows were passed over no faster than all (fp32, one core).
        roomless = not self._narrow and problem.terms.softcap is None
        few = self.rows if kernel.vocabulary_first or roomless else rows_at_once(vocab, self.hidden.device)
        self.few = min(self.rows, few)
        self.logits = self._buffer(problem.compute, self.rows)
        self.work: Tensor | None = None  # the logits' own place, where there is none
        self.capped: Tensor | None = None
        if kernel.name != "compiled":
            self._get_room()

        self.losses = self.hidden.new_empty(count, dtype=problem.exact)
        self.correct = self.hidden.new_zeros((), dtype=torch.int64)
        wants_hidden, wants_weight, wants_bias = wanted
        self.d_hidden = torch.empty_like(self.hidden) if wants_hidden else None
        self.d_weight = torch.zeros_like(self.weight, dtype=problem.exact) if wants_weight else None
        self.d_bias = self.weight.new_zeros(vocab, dtype=problem.exact) if wants_bias else None
        # Products in a narrow format are added up in the wide one, so they need a place of their own.
        self.product = torch.empty_like(self.weight) if wants_weight and self._narrow else None

    @property
    def _narrow(self) -> bool:
        """Whether products are made in a format too narrow for the passes between them."""
        return self.problem.compute != self.problem.exact

    def _get_room(self) -> None:
        """For what is made of a few rows of logits, which a compiled kernel does without."""
        if self._narrow:
            self.work = self._buffer(self.problem.exact, self.few)
        if self.problem.terms.softcap is not None:
            self.capped = self._buffer(self.problem.exact, self.few)

    def _buffer(self, dtype: torch.dtype, rows: int) -> Tensor:
        """Room for (rows, V) values; the memory may be (V, rows)."""
        vocab = self.weight.shape[0]
        if self.kernel.vocabulary_first:
            return self.weight.new_empty(vocab, rows, dtype=dtype).t()
        short = self.kernel.name == "compiled" and self.hidden.shape[0] < rows
        make = self.weight.new_zeros if short else self.weight.new_empty  # no NaN in rows that are only filling
        return make(rows, vocab, dtype=dtype)

    def run(self) -> _Found:
        for start, stop in self._chunks():
            self._chunk(start, stop)
        losses, weights = self.losses, self.problem.weights
        if weights is not None:
            losses = losses * weights
        correct = self.correct if self.problem.terms.accuracy else None
        return _Found(losses.sum(dtype=self.problem.total), correct, [self.d_hidden, self.d_weight, self.d_bias])

    def _chunks(self) -> Iterator[tuple[int, int]]:
        count = self.hidden.shape[0]
        return ((start, min(start + self.rows, count)) for start in range(0, count, self.rows))

    def _chunk(self, start: int, stop: int) -> None:
        hidden = self.hidden[start:stop]
        logits = self.logits[: stop - start]
        if self.bias is None:
            torch.mm(hidden, self.weight.t(), out=logits)
        else:
            torch.addmm(self.bias, hidden, self.weight.t(), out=logits)
        slope, scale = self._slope(logits, start, stop)
        if self.differentiate:
            self._multiply(slope, scale, start, stop)

    def _slope(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Gradient of the chunk's logits as ``slope`` (n, V) times ``scale`` (n,), where that is not None.

        ``logits`` (n, V) are lost: the slope takes their place.
        """
        if self.kernel.name == "compiled":
            if self._compiled(logits, start, stop):
                return logits, None
            self.kernel = Kernel("chunked", self.rows)
            self._get_room()
        scale = logits.new_empty(stop - start, dtype=self.problem.exact)
        for first in range(0, stop - start, self.few):
            few = slice(first, min(first + self.few, stop - start))
            self._few_rows(logits[few], scale[few], slice(start + few.start, start + few.stop))
        # The way into a narrow format is a pass anyway, so it has normalized too.
        return logits, None if self.work is not None else scale

    def _compiled(self, logits: Tensor, start: int, stop: int) -> bool:
        """Whether the compiled kernel could be made, and has done its work."""
        problem = self.problem
        labels = problem.labels[start:stop]
        weights = None if problem.weights is None else problem.weights[start:stop]
        correct = leading(logits, labels)[1] if problem.terms.accuracy else None
        losses = compiled_rows(self.logits, labels, weights, problem.terms, gradient=self.differentiate)
        if losses is None:
            return False
        self.losses[start:stop] = losses
        if correct is not None:
            self.correct += correct
        return True

    def _few_rows(self, logits: Tensor, scale: Tensor, where: slice) -> None:
        """Losses of the positions ``where``, and into ``logits`` and ``scale`` what their gradient is made of."""
        problem = self.problem
        work = logits if self.work is None else self.work[: len(logits)]
        capped = None if self.capped is None else self.capped[: len(logits)]
        labels = problem.labels[where]
        losses, own, correct = eager_rows(logits, labels, problem.terms, work, capped, gradient=self.differentiate)
        self.losses[where] = losses
        if correct is not None:
            self.correct += correct
        if not self.differentiate:
            return
        if problem.weights is not None:
            own.mul_(problem.weights[where])
        if self.work is None:
            scale.copy_(own)
        else:
            torch.mul(work, own.unsqueeze(-1), out=logits)

    def _multiply(self, slope: Tensor, scale: Tensor | None, start: int, stop: int) -> None:
        hidden = self.hidden[start:stop]
        if self.d_hidden is not None:
            product = torch.mm(slope, self.weight, out=self.d_hidden[start:stop])
            if scale is not None:
                product.mul_(scale.unsqueeze(-1))
        if self.d_weight is not None and self.product is not None:
            self.d_weight.add_(torch.mm(slope.t(), hidden, out=self.product))
        elif self.d_weight is not None:
            self.d_weight.addmm_(slope.t(), hidden if scale is None else hidden * scale.unsqueeze(-1))
        if self.d_bias is not None:
            if scale is None:
                self.d_bias.add_(slope.sum(0, dtype=self.d_bias.dtype))
            else:
                self.d_bias.addmv_(slope.t(), scale)
