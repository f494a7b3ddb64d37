"""The elementwise part of a chunk, compiled when it is first needed: two passes over (C, V) instead of six."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from lmtrain.core.errors import first_line
from lmtrain.objectives.linear_cross_entropy.kernel import Terms
from lmtrain.objectives.linear_cross_entropy.rows import fused_rows

_log = logging.getLogger(__name__)
_broken: list[str] = []  # why nothing is compiled in this process any more


def compiled_rows(
    logits: Tensor, labels: Tensor, weights: Tensor | None, terms: Terms, *, gradient: bool
) -> Tensor | None:
    """Losses (n,) of the first n = len(labels) rows of ``logits`` (C, V), all of which may be overwritten.

    Always computed on all C rows, so that a last, shorter chunk has the shape that was compiled. None where
    compiling failed: then ``logits`` is as it was, and the log has its one line about it.
    """
    if _broken:
        return None
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # a second; only who compiles pays it

    count, filling = labels.shape[0], logits.shape[0] - labels.shape[0]
    labels = functional.pad(labels, (0, filling))
    weights = None if weights is None else functional.pad(weights, (0, filling))
    try:
        return _compiled()(logits, labels, weights, terms, gradient=gradient)[:count]
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        _broken.append(first_line(error))
        _log.warning("loss: the compiled kernel cannot be made here (%s); it goes on uncompiled", _broken[0])
        return None


def broken() -> str | None:
    """Why compiling failed in this process, or None."""
    return _broken[0] if _broken else None


@cache
def _compiled() -> Callable[..., Tensor]:
    # Whole or not at all: part of it compiled would be slower than none.
    return torch.compile(fused_rows, fullgraph=True, dynamic=False)
