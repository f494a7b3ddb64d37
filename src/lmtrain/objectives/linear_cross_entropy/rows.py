"""The elementwise part: from the logits of some positions to their losses and to the gradient of the logits.

The same formula twice: :func:`eager_rows` in as few passes over (C, V) values as PyTorch's own operations
allow, in place; :func:`fused_rows` written for a compiler, which makes two passes of it. For a position with
logits x, label y, weight w, m = max x, s = Σ exp(x − m) and lse = m + log s::

    loss = (1−ε)(lse − x_y) + ε(lse − mean x) + ζ lse²
    dloss/dx = w (exp(x − m)/s · (1 + 2ζ lse) − ε/V − (1−ε)[y])

ζ is the z-loss of PaLM (Chowdhery et al., 2022, section 5), ε label smoothing (Szegedy et al., 2016). With a
cap c, x = c·tanh(z/c) as in Gemma 2 (2024, section 2), and dx/dz = 1 − (x/c)².
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmtrain.objectives.linear_cross_entropy.kernel import Terms


def eager_rows(
    logits: Tensor,
    labels: Tensor,
    terms: Terms,
    work: Tensor,
    capped: Tensor | None,
    *,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Losses (C,) of ``logits`` (C, V), ``scale`` (C,), and how many labels lead where ``terms`` ask for it; ``work``
    (C, V) is left as the gradient ÷ scale.

    ``work`` may be ``logits`` itself, which is lost in either case. ``capped`` (C, V) is room for tanh where
    there is a cap. The rows are not normalized here: whoever multiplies by ``work`` scales the small side of
    the product instead, which spares a pass. Without ``gradient``, ``work`` holds nothing of use.
    """
    column = labels.unsqueeze(-1)
    top, correct = leading(logits, labels) if terms.accuracy else (logits.amax(-1, keepdim=True), None)
    top = top.to(work.dtype)
    if terms.softcap is not None:
        assert capped is not None
        factor = torch.full((1,), 1 / terms.softcap, dtype=work.dtype, device=work.device)  # so that narrow ones widen
        torch.mul(logits, factor, out=capped).tanh_()
        logits = torch.mul(capped, terms.softcap, out=work)
        top = logits.amax(-1, keepdim=True)  # of the capped ones as they were rounded, so that no power exceeds 1
    torch.sub(logits, top, out=work)
    losses = work.gather(-1, column).mul_(terms.label_smoothing - 1)
    if terms.label_smoothing:
        losses.sub_(work.mean(-1, keepdim=True), alpha=terms.label_smoothing)
    total = work.exp_().sum(-1, keepdim=True)
    log_total = total.log()
    losses.add_(log_total)
    log_partition = top + log_total
    if terms.z_loss:
        losses.addcmul_(log_partition, log_partition, value=terms.z_loss)
    if gradient:
        if terms.z_loss:
            work.mul_(1 + 2 * terms.z_loss * log_partition)
        if terms.label_smoothing:
            work.sub_(total * (terms.label_smoothing / work.shape[-1]))
        work.scatter_add_(-1, column, total * (terms.label_smoothing - 1))
        if capped is not None:
            work.mul_(capped.square_().neg_().add_(1))
    return losses.squeeze(-1), total.reciprocal_().squeeze(-1), correct


def fused_rows(logits: Tensor, labels: Tensor, weights: Tensor | None, terms: Terms, *, gradient: bool) -> Tensor:
    """Losses (C,) of ``logits`` (C, V), which are overwritten with their gradient when ``gradient``."""
    scores = logits.to(torch.float64 if logits.dtype is torch.float64 else torch.float32)
    if terms.softcap is not None:
        tanh = torch.tanh(scores / terms.softcap)
        scores = tanh * terms.softcap
    top = scores.amax(-1, keepdim=True)
    shifted = scores - top
    powers = shifted.exp()
    total = powers.sum(-1, keepdim=True)
    log_total = total.log()
    log_partition = top + log_total
    losses = log_total - (1 - terms.label_smoothing) * shifted.gather(-1, labels.unsqueeze(-1))
    if terms.label_smoothing:
        losses = losses - terms.label_smoothing * shifted.mean(-1, keepdim=True)
    if terms.z_loss:
        losses = losses + terms.z_loss * log_partition.square()
    if gradient:
        at_label = torch.arange(logits.shape[-1], device=logits.device) == labels.unsqueeze(-1)
        slope = powers * ((1 + 2 * terms.z_loss * log_partition) / total)
        slope = slope - terms.label_smoothing / logits.shape[-1]
        slope = torch.where(at_label, slope - (1 - terms.label_smoothing), slope)
        if terms.softcap is not None:
            slope = slope * (1 - tanh.square())
        logits.copy_(slope if weights is None else slope * weights.unsqueeze(-1))
    return losses.squeeze(-1)


def leading(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each row of ``logits`` (C, V), as (C, 1), and how many rows have their label as the first of the
    largest: int64 of shape ()."""
    if logits.device.type != "cpu":  # to know which rows are ties would mean to wait
        return logits.amax(-1, keepdim=True), logits.argmax(-1).eq(labels).sum()
    # arg max is the dearest pass of all on a CPU, ten times a max. The largest of a row without its label tells both
    # the largest of all and whether the label leads; only of a tie it is not known which comes first.
    column = labels.unsqueeze(-1)
    own = logits.gather(-1, column)
    logits.scatter_(-1, column, float("-inf"))
    others = logits.amax(-1, keepdim=True)
    logits.scatter_(-1, column, own)
    ties = own.eq(others).squeeze(-1).nonzero().squeeze(-1)
    first = logits[ties].argmax(-1).eq(labels[ties]) if len(ties) else ties
    return torch.maximum(own, others), own.gt(others).sum() + first.sum()
