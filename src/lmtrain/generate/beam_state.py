"""The hypotheses of a beam search: which tokens follow, which end, which example is decided.

Shapes: ``B`` contexts of a batch, ``K`` beams of each, ``R ≤ B·K`` rows (hypotheses that go on), ``V`` vocabulary,
``t`` generated tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 16  # of logits normalized together: 16 × 50,257 numbers stay in a CPU's cache between two passes


@dataclass(frozen=True, slots=True)
class BeamRules:
    """What makes one hypothesis better than another, and which are forbidden.

    ``stops`` end a hypothesis. A ``no_repeat_ngram_size`` of 0 allows every repetition.
    """

    num_beams: int
    length_penalty: float
    no_repeat_ngram_size: int
    max_new_tokens: int
    stops: tuple[int, ...]
    repetition_penalty: float = 1.0

    def normalized(self, scores: Tensor, length: int) -> Tensor:
        """``scores`` (sums of log-probabilities) over lengthᵖ: what finished hypotheses are compared by."""
        return scores / float(length**self.length_penalty)

    def bound(self, scores: Tensor, length: int) -> Tensor:
        """The most that a hypothesis of ``length`` tokens with ``scores`` can still come to.

        A sum of log-probabilities is at most 0 and only falls, so the best is that it stays as it is and ends at the
        length that divides by most: the longest, or with a negative penalty the next. Rounding keeps the order of
        numbers, so this holds for the sums and quotients in fp32 too.
        """
        last = self.max_new_tokens
        return self.normalized(scores, last if self.length_penalty >= 0 else min(length + 1, last))


class Beams:
    """The K hypotheses of each of B contexts by rank, best first, and the best finished one.

    Those that have ended score -inf, and so do those that cannot become the best any more (:meth:`BeamRules.bound`).
    To leave these out changes nothing: a continuation of one never scores more than it, so it ranks below all that can
    still win and takes no place from them.
    """

    def __init__(self, contexts: int, rules: BeamRules, device: torch.device) -> None:
        self.rules = rules
        self.index = torch.arange(contexts, device=device)  # (B,) the number of each context in its batch
        self.length = 0  # t
        self.scores = torch.zeros(contexts, 1, device=device)  # (B, K)
        self.tokens = torch.zeros(contexts, 1, 0, dtype=torch.int64, device=device)  # (B, K, t)
        self.cells = torch.arange(contexts, device=device)  # (R,) of each row, where in (B, K) its hypothesis is
        self.parents = self.cells[:, None]  # (B, K) the row before the last step
        self.best_scores = torch.full((contexts,), float("-inf"), device=device)
        self.best_tokens = torch.zeros(contexts, rules.max_new_tokens, dtype=torch.int64, device=device)
        self.best_lengths = torch.zeros(contexts, dtype=torch.int64, device=device)
        self._stops = torch.tensor(rules.stops, dtype=torch.int64, device=device)

    def advance(self, logits: Tensor) -> None:
        """Go one token on, given the ``logits`` (R, V) after each row."""
        scores, parents, tokens = self._candidates(logits)
        rows = torch.zeros(self.scores.numel(), dtype=torch.int64, device=logits.device)
        rows[self.cells] = torch.arange(len(self.cells), device=logits.device)
        self.parents = rows.view(self.scores.shape).gather(1, parents)
        before = self.tokens.gather(1, parents[..., None].expand(-1, -1, self.length))
        self.tokens = torch.cat([before, tokens[..., None]], dim=2)
        self.length += 1
        ended = torch.isin(tokens, self._stops)
        last = self.length == self.rules.max_new_tokens
        self._keep_best(scores if last else scores.masked_fill(~ended, float("-inf")))
        hopeless = self.rules.bound(scores, self.length) <= self.best_scores[:, None]
        self.scores = scores.masked_fill(ended | hopeless, float("-inf"))

    def finish(self) -> list[tuple[int, list[int]]]:
        """Take out the contexts of which no hypothesis goes on: their numbers and best hypotheses, its end included."""
        on = (self.scores > float("-inf")).any(dim=1)
        if bool(on.all()):
            return []
        numbers, rows, lengths = (t[~on].tolist() for t in (self.index, self.best_tokens, self.best_lengths))
        for name in ("index", "scores", "tokens", "parents", "best_scores", "best_tokens", "best_lengths"):
            setattr(self, name, getattr(self, name)[on])
        return [(number, row[:length]) for number, row, length in zip(numbers, rows, lengths, strict=True)]

    def going(self) -> tuple[Tensor, list[int], list[int]]:
        """Those that go on, by context and rank: their places in (B, K), contexts' numbers and rows before the step."""
        cells = (self.scores.flatten() > float("-inf")).nonzero().squeeze(1)
        contexts = self.index[cells // self.scores.shape[1]]
        return cells, contexts.tolist(), self.parents.flatten()[cells].tolist()

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The K best continuations of each context, best first: their scores, parents' ranks and tokens (B, K).

        Equal scores go by the rank of the parent, then by the smaller id. K of each row are enough, for no more can
        be taken from it.
        """
        contexts, before = self.scores.shape
        logits = forbid(logits.float(), self.tokens.flatten(0, 1)[self.cells], self.rules)
        values, ids = _largest(logits, self.rules.num_beams)
        # log softmax, only where it is needed. A row with nothing allowed is all -inf, and nan without this.
        values = (values - _logsumexp(logits)).nan_to_num(nan=float("-inf"), neginf=float("-inf"))
        ids, order = ids.sort(dim=1)
        each = ids.shape[1]
        totals = values.new_full((contexts * before, each), float("-inf"))
        totals[self.cells] = self.scores.flatten()[self.cells, None] + values.gather(1, order)
        tokens = ids.new_zeros(contexts * before, each)
        tokens[self.cells] = ids
        best, chosen = totals.view(contexts, -1).sort(dim=1, descending=True, stable=True)
        best, chosen = best[:, : self.rules.num_beams], chosen[:, : self.rules.num_beams]
        return best, chosen // each, tokens.view(contexts, -1).gather(1, chosen)

    def _keep_best(self, scores: Tensor) -> None:
        """Of the finished ``scores`` (B, K) the first best, if it is better than what there is."""
        score, rank = scores.max(dim=1)
        score = self.rules.normalized(score, self.length)
        better = score > self.best_scores
        self.best_scores = torch.where(better, score, self.best_scores)
        self.best_lengths = torch.where(better, self.length, self.best_lengths)
        found = self.tokens.gather(1, rank[:, None, None].expand(-1, 1, self.length)).squeeze(1)
        now = self.best_tokens[:, : self.length]
        self.best_tokens[:, : self.length] = torch.where(better[:, None], found, now)


def _largest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of each row and their ids; at the edge the smaller of ids with equal logits.

    ``topk`` leaves open which of them it takes, and half-precision logits are equal all the time.
    """
    values, ids = logits.topk(min(count + 1, logits.shape[1]), dim=1)
    if values.shape[1] <= count:
        return values, ids
    tied = (values[:, count - 1] == values[:, count]).nonzero().squeeze(1)
    values, ids = values[:, :count], ids[:, :count]
    if len(tied):
        edge = values[tied, -1:]
        numbers = -torch.arange(logits.shape[1], dtype=torch.float32, device=logits.device)  # exact up to 2²⁴
        smallest = torch.where(logits[tied] == edge, numbers, float("-inf")).topk(count, dim=1).indices
        place = torch.arange(count, device=ids.device) - (values[tied] > edge).sum(dim=1, keepdim=True)
        ids[tied] = torch.where(place >= 0, smallest.gather(1, place.clamp(min=0)), ids[tied])
    return values, ids


def _logsumexp(logits: Tensor) -> Tensor:
    """(R, 1). In pieces on a CPU, where one pass over all of (R, V) after the other would go through main memory."""
    pieces = logits.split(_ROWS) if logits.device.type == "cpu" else (logits,)
    return torch.cat([piece.logsumexp(dim=1, keepdim=True) for piece in pieces])


def forbid(logits: Tensor, tokens: Tensor, rules: BeamRules) -> Tensor:
    """``logits`` (R, V) after the repetition penalty and without repeated n-grams, given what was generated (R, t).

    The penalty r (Keskar et al., *CTRL*, 2019) divides the logits of tokens that occurred by r when they are positive
    and multiplies them by r when they are not. An n-gram that the generated tokens hold already cannot come again:
    its last token gets −inf *before* the softmax, so the others share its probability. Writes to ``logits``.
    """
    n, length = rules.no_repeat_ngram_size, tokens.shape[1]
    if rules.repetition_penalty != 1.0 and length:
        said = logits.gather(1, tokens)
        said = torch.where(said < 0, said * rules.repetition_penalty, said / rules.repetition_penalty)
        logits.scatter_(1, tokens, said)
    if 0 < n <= length:
        windows = tokens.unfold(1, n, 1)  # (R, t - n + 1, n)
        again = (windows[..., :-1] == tokens[:, None, length - n + 1 :]).all(dim=2)
        ceiling = torch.where(again, float("-inf"), float("inf")).to(logits.dtype)
        logits.scatter_reduce_(1, windows[..., -1], ceiling, "amin")
    return logits
