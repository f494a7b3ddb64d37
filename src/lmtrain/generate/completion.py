"""What a model made of a prompt."""

from __future__ import annotations

from dataclasses import dataclass

from lmtrain.generate.logprobs import TokenLogprob


@dataclass(frozen=True, slots=True)
class Completion:
    """``text`` continues ``prompt``; ``index`` is the prompt's number, ``sample`` the completion's.

    ``ids`` were generated, the end of text or the tokens of the stop string included. ``finished`` says that the
    model ended it itself, with the end of text or with the stop string ``stop``, which is no part of ``text``.
    ``logprobs``, where asked for, has an entry for each of ``ids``.
    """

    index: int
    sample: int
    prompt: str
    text: str
    ids: tuple[int, ...]
    finished: bool
    stop: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None

    @property
    def n_tokens(self) -> int:
        return len(self.ids)
