"""When a completion ends before its end of text: at a stop string, or because somebody asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lmtrain.generate.text import BEFORE, continuation

if TYPE_CHECKING:
    from torch import Tensor

_SPARE = 8  # tokens without a text of their own


class StopStrings:
    """A stopping criterion: rows whose new text holds one of ``stops`` are done.

    Looks at the end of the text only, at as many tokens as a stop string has bytes: it is called at each step. Rows
    may be the hypotheses of a beam search. ``start`` is where the new tokens begin.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], start: int) -> None:
        self._tokenizer, self._stops, self._start = tokenizer, stops, start
        self._window = max(len(stop.encode()) for stop in stops) + _SPARE

    def __call__(self, input_ids: Tensor, scores: Any = None, **_: Any) -> Tensor:
        """``input_ids`` (B, T) → bool (B,)."""
        import torch

        first = max(self._start, input_ids.shape[1] - self._window)
        before = max(0, first - BEFORE)
        rows = input_ids[:, before:].tolist()
        texts = [continuation(self._tokenizer, row[: first - before], row[first - before :]) for row in rows]
        return torch.tensor([any(stop in text for stop in self._stops) for text in texts], device=input_ids.device)


class WhenAsked:
    """A stopping criterion: all rows are done as soon as ``asked`` says so."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def __call__(self, input_ids: Tensor, scores: Any = None, **_: Any) -> Tensor:
        """``input_ids`` (B, T) → bool (B,)."""
        import torch

        return torch.full((len(input_ids),), self._asked(), dtype=torch.bool, device=input_ids.device)
