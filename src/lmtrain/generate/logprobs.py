"""Log-probabilities of a text that was generated, token by token.

Shapes: ``T`` positions, ``V`` vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 64  # positions whose probabilities are worked out together: 64 × 50,257 fp32 numbers are 13 MB


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that was written: its ``id``, its log-probability (nats) given all before it, and the likeliest ones.

    ``top`` are pairs (id, log-probability), likeliest first.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def token_logprobs(model: Any, prompt: Sequence[int], new: Sequence[int], top: int = 0) -> list[TokenLogprob]:
    """What the model thought of each of the ``new`` tokens after ``prompt``, worked out in fp32.

    The probabilities are the model's own: before temperature, filters and penalties, which is what log-probabilities
    are asked for. One pass over the whole text, without padding, gives them for any way of decoding, a beam search
    too.
    """
    import torch

    if not new:
        return []
    ids = torch.tensor([[*prompt, *new][:-1]], device=model.device)
    takes = inspect.signature(model.forward).parameters
    more: dict[str, Any] = {"logits_to_keep": len(new)} if "logits_to_keep" in takes else {}
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False, **more).logits[0, -len(new) :]  # (T, V)
    chosen = torch.tensor(list(new), device=logits.device)
    found: list[TokenLogprob] = []
    for part, tokens in zip(logits.split(_ROWS), chosen.split(_ROWS), strict=True):
        found += _of(part, tokens, top)
    return found


def _of(logits: Tensor, tokens: Tensor, top: int) -> list[TokenLogprob]:
    logprobs = logits.float().log_softmax(-1)
    own = logprobs.gather(1, tokens[:, None]).squeeze(1).tolist()
    best = logprobs.topk(min(top, logprobs.shape[1]), dim=1)
    return [
        TokenLogprob(token, value, tuple(zip(ids, values, strict=True)))
        for token, value, ids, values in zip(
            tokens.tolist(), own, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]
