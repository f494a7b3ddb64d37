"""The beam search of the LoRA data-to-text results as a page of plain Python: one context, no cache, no batch.

Written from its description in :func:`lmtrain.generate.beam_search`; nothing is shared with the package.
"""

from __future__ import annotations

from typing import Any

import torch

NEVER = -float("inf")


def search(
    model: Any,
    context: list[int],
    *,
    beams: int,
    penalty: float,
    ngram: int,
    longest: int,
    stops: tuple[int, ...],
    repetition: float = 1.0,
) -> list[int]:
    """The generated ids. The model reads every hypothesis anew at every step, from the context on."""
    alive: list[tuple[torch.Tensor, list[int]]] = [(torch.tensor(0.0), [])]
    best_score, best = torch.tensor(NEVER), []
    for length in range(1, longest + 1):
        with torch.no_grad():  # all of the same length: nothing is padded
            logits = model(input_ids=torch.tensor([context + words for _, words in alive]), use_cache=False).logits
        continuations = []
        for (score, written), row in zip(alive, logits[:, -1], strict=True):
            probabilities = torch.softmax(_allowed(row.tolist(), written, ngram, repetition), dim=0)
            values = (score + torch.log(probabilities)).tolist()
            continuations += [(value, [*written, token]) for token, value in enumerate(values)]
        continuations.sort(key=lambda pair: -pair[0])  # equal ones stay as they are
        alive = []
        for value, written in continuations[:beams]:
            if value == NEVER:
                continue
            score = torch.tensor(value)
            if (written[-1] in stops or length == longest) and score / length**penalty > best_score:
                best_score, best = score / length**penalty, written
            if written[-1] not in stops:
                alive.append((score, written))
        if not alive:
            break
    return best


def _allowed(logits: list[float], written: list[int], ngram: int, repetition: float) -> torch.Tensor:
    for token in set(written):
        logits[token] = logits[token] * repetition if logits[token] < 0 else logits[token] / repetition
    seen = {tuple(written[start : start + ngram]) for start in range(len(written) - ngram + 1)} if ngram else set()
    for token in range(len(logits)):
        if (*written[len(written) - ngram + 1 :], token) in seen:
            logits[token] = NEVER
    return torch.tensor(logits)
