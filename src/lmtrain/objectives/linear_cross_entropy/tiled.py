"""Some words at a time as well as some positions, where the head itself learns nothing: evaluations, and LoRA.

Of a position's softmax it is enough to know, after some tiles of the vocabulary, its largest logit so far and the sum
of the powers relative to that (Milakov and Gimelshein, 2018, arXiv:1805.02867). The gradient of its hidden state is a
sum over the words, which is put right with them (as in FlashAttention, Dao et al., 2022, arXiv:2205.14135), and the
label's part is one row of the weight::

    dloss/dh = w ((1 + 2ζ lse) Σ p_v W_v − (1−ε) W_y − ε/V Σ W_v)

with the letters of :mod:`lmtrain.objectives.linear_cross_entropy.rows`, and each W_v times 1 − (x_v/c)² under a cap.
So a tile is passed over in the caches and forgotten; only the weight's own gradient would need all of them again. On
one core in fp32 (D = 256, V = 50,257) an evaluation's loss took 0.75 of the time of whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lmtrain.objectives.linear_cross_entropy.kernel import Found, Problem, words_at_once


def tiles_suit(problem: Problem, wanted: tuple[bool, ...]) -> bool:
    """Whether :func:`tiled` can do what is ``wanted`` of (hidden states, weight, bias) as gradients, on a device whose
    caches are worth it."""
    wants_hidden, wants_weight, wants_bias = wanted
    # Each word's share of the smoothing would then be another one, and take a third product.
    smoothed = problem.terms.label_smoothing and problem.terms.softcap is not None
    learns = wants_weight or wants_bias or (wants_hidden and smoothed)
    return not learns and problem.hidden.device.type == "cpu"


def tiled(problem: Problem, rows: int, *, differentiate: bool) -> Found:
    """The sums over all positions, ``rows`` of them at a time; with the gradient of the hidden states if asked for."""
    hidden = problem.hidden.to(problem.compute).contiguous()
    count, vocab = len(hidden), len(problem.weight)
    _check_labels(problem.labels, vocab)
    rows = min(rows, max(count, 1))
    words = min(words_at_once(rows), vocab)
    head = _Head(problem, rows * words)
    losses = hidden.new_empty(count, dtype=problem.exact)
    gradient = hidden.new_zeros(hidden.shape, dtype=problem.exact) if differentiate else None
    correct = hidden.new_zeros((), dtype=torch.int64)
    for start in range(0, count, rows):
        some = slice(start, min(start + rows, count))
        part = _Positions(head, hidden[some], problem.labels[some], None if gradient is None else gradient[some])
        for first in range(0, vocab, words):
            part.add(first, min(first + words, vocab))
        losses[some] = part.finish()
        correct += part.hits()
    if problem.weights is not None:
        losses.mul_(problem.weights)
        if gradient is not None:
            gradient.mul_(problem.weights.unsqueeze(-1))
    d_hidden = None if gradient is None else gradient.to(problem.hidden.dtype)
    return Found(losses.sum(dtype=problem.total), correct if problem.terms.accuracy else None, [d_hidden, None, None])


def _check_labels(labels: Tensor, vocab: int) -> None:
    """One outside the vocabulary would lie in no tile."""
    outside = labels[(labels < 0) | (labels >= vocab)]
    if len(outside):
        raise IndexError(f"label {int(outside[0])} is outside the vocabulary of {vocab} words")


class _Head:
    """What all positions share: the head itself, and room for one tile of ``size`` logits."""

    def __init__(self, problem: Problem, size: int) -> None:
        self.terms, self.exact = problem.terms, problem.exact
        self.weight = problem.weight.to(problem.compute)
        self.bias = None if problem.bias is None else problem.bias.to(problem.compute)
        self.logits = self.weight.new_empty(size)
        self.narrow = problem.compute != problem.exact
        self.work = self.weight.new_empty(size, dtype=problem.exact) if self.narrow else self.logits
        self.capped = None if problem.terms.softcap is None else torch.empty_like(self.work)
        smoothed = problem.terms.label_smoothing
        self.mean_word = self.weight.mean(0, dtype=problem.exact) if smoothed else None  # (D,)

    def product(self, hidden: Tensor, words: slice) -> Tensor:
        """Logits (n, m) of ``hidden`` (n, D) for the m ``words``."""
        weight = self.weight[words]
        logits = _first_of(self.logits, (len(hidden), len(weight)))
        if self.bias is None:
            return torch.mm(hidden, weight.t(), out=logits)
        return torch.addmm(self.bias[words], hidden, weight.t(), out=logits)

    def cap(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """The scores x = c·tanh(z/c) and their x/c; the logits z themselves and None where there is no cap c."""
        softcap = self.terms.softcap
        if self.capped is None or softcap is None:
            return logits, None
        capped = _first_of(self.capped, logits.shape).copy_(logits).div_(softcap).tanh_()
        return torch.mul(capped, softcap, out=_first_of(self.work, logits.shape)), capped


class _Positions:
    """Some positions, and what is known of each of them from the words so far, as columns (n, 1)."""

    def __init__(self, head: _Head, hidden: Tensor, labels: Tensor, gradient: Tensor | None) -> None:
        self.head, self.hidden, self.labels, self.gradient = head, hidden, labels, gradient
        # Not −∞: a whole tile may be that, and what is relative to −∞ is no number.
        self.top = hidden.new_full((len(labels), 1), torch.finfo(head.exact).min, dtype=head.exact)
        self.largest = self.top  # of the logits, where hits are counted; ``top`` is that of the scores
        self.total, self.sum, self.own = (torch.zeros_like(self.top) for _ in range(3))
        self.first = torch.zeros_like(labels, dtype=torch.bool)  # whether no word up to the label's tile is before it

    def add(self, first: int, stop: int) -> None:
        """The words from ``first`` until ``stop``."""
        words, exact = slice(first, stop), self.head.exact
        logits = self.head.product(self.hidden, words)
        here = ((self.labels >= first) & (self.labels < stop)).nonzero().squeeze(-1)
        column = self.labels[here] - first
        self.own[here, 0] = logits[here, column].to(exact)
        if self.head.terms.accuracy:
            before = self.own[here, 0] <= self.largest[here, 0]
            self.first[here] = logits[here].argmax(-1).eq(column) & ~before
            self.largest = torch.maximum(logits.amax(-1, keepdim=True).to(exact), self.largest)
        scores, capped = self.head.cap(logits)
        if self.head.terms.label_smoothing:
            self.sum.add_(scores.sum(-1, keepdim=True, dtype=exact))
        top = torch.maximum(scores.amax(-1, keepdim=True).to(exact), self.top)
        fading, self.top = (self.top - top).exp_(), top
        powers = torch.sub(scores, top, out=_first_of(self.head.work, logits.shape)).exp_()
        self.total.mul_(fading).add_(powers.sum(-1, keepdim=True))
        if self.gradient is None:
            return
        if capped is not None:
            powers.mul_(capped.square_().neg_().add_(1))
        self.gradient.mul_(fading)
        if self.head.narrow:  # added up in the wide format
            self.gradient.add_(logits.copy_(powers) @ self.head.weight[words])
        else:
            self.gradient.addmm_(powers, self.head.weight[words])

    def finish(self) -> Tensor:
        """Losses (n,) of the positions, whose gradient is complete then."""
        terms, own, slope = self.head.terms, self.own, torch.ones_like(self.own)
        smoothing = terms.label_smoothing
        if terms.softcap is not None:
            capped = torch.tanh(own / terms.softcap)
            own, slope = capped * terms.softcap, 1 - capped.square()
        log_total = self.total.log()
        log_partition = self.top + log_total
        losses = log_total + (1 - smoothing) * (self.top - own) + terms.z_loss * log_partition.square()
        if smoothing:
            losses += smoothing * (self.top - self.sum / len(self.head.weight))
        if self.gradient is not None:
            self.gradient.mul_((1 + 2 * terms.z_loss * log_partition) / self.total)
            self.gradient.sub_(self.head.weight[self.labels] * ((1 - smoothing) * slope))
            if self.head.mean_word is not None:
                self.gradient.sub_(self.head.mean_word, alpha=smoothing)
        return losses.squeeze(-1)

    def hits(self) -> Tensor:
        """How many labels are the first of the largest logits, once all words are known: int64 of shape ()."""
        return (self.first & (self.own >= self.largest).squeeze(-1)).sum()


def _first_of(room: Tensor, shape: Sequence[int]) -> Tensor:
    """The beginning of ``room``, in ``shape``."""
    return room[: math.prod(shape)].view(shape)
