"""Text as it is written: told piece by piece while the model goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from lmtrain.generate.text import TextSoFar, before_stop, held_back

if TYPE_CHECKING:
    from torch import Tensor

    from lmtrain.generate.completion import Completion


class Stream(Protocol):
    """Who hears of completions while they are made, one after the other."""

    def begin(self, index: int, sample: int, prompt: str) -> None: ...

    def write(self, text: str) -> None: ...

    def end(self, completion: Completion) -> None: ...


class Pieces:
    """A streamer of ``generate`` that gives text away as soon as it is certain to stay.

    ``ends`` are ids that end a text and are no part of it. What may be the beginning of one of ``stops`` is held back
    until it is known not to be. :meth:`finish` gives the rest: all that was written is then exactly the text, but for
    tokenizers that write a whole run of bytes as unreadable for one wrong byte at its end (SentencePiece's byte
    tokens): what was given away stays.
    """

    def __init__(
        self, tokenizer: Any, prompt: Sequence[int], ends: Collection[int], stops: Sequence[str], write: Callable
    ) -> None:
        self._text = TextSoFar(tokenizer, prompt)
        self._ends = ends
        self._stops = stops
        self._write = write
        self._written = self._waiting = ""
        self._is_over = self._heard_prompt = False

    def put(self, tokens: Tensor) -> None:
        """The prompt at the first call, one token at each further."""
        if not self._heard_prompt:
            self._heard_prompt = True
            return
        for token in tokens.flatten().tolist():
            self._is_over = self._is_over or token in self._ends
            if not self._is_over:
                self._take(self._text.add(token))

    def _take(self, text: str) -> None:
        self._waiting += text
        self._waiting, stop = before_stop(self._waiting, self._stops)
        self._is_over = stop is not None
        keep = 0 if self._is_over else held_back(self._waiting, self._stops)
        self._give(self._waiting[: len(self._waiting) - keep])

    def _give(self, text: str) -> None:
        if text:
            self._write(text)
            self._written += text
            self._waiting = self._waiting[len(text) :]

    def end(self) -> None:
        """Called by ``generate``; the rest is only known when the whole text is."""

    def finish(self, text: str) -> None:
        """``text`` is the whole: give what is missing of it."""
        if text.startswith(self._written):
            self._waiting = text[len(self._written) :]
            self._give(self._waiting)
