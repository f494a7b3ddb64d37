"""How to complete a prompt, and which of the settings go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lmtrain.core.errors import Problems


@dataclass(frozen=True, slots=True)
class Settings:
    """How to complete. Only these count: generation settings stored with a checkpoint are not mixed in.

    Sampling draws from what is left of the distribution after ``temperature``, ``top_k``, ``top_p`` and ``min_p``, in
    this order: ``top_k`` likeliest tokens (0: all); of these the likeliest that make up the probability ``top_p`` (1:
    all); of these those at least ``min_p`` times as likely as the likeliest (0: all). ``seed`` and the prompt decide
    what is drawn.

    A beam search (``num_beams``) compares finished hypotheses by sum of log-probabilities / lengthᵖ with p =
    ``length_penalty``; ``early_stopping`` says when it ends: ``True`` as soon as ``num_beams`` are finished,
    ``"never"`` when none can become better, ``False`` by a guess in between.

    ``repetition_penalty`` and ``no_repeat_ngram_size`` (0: none) count the prompt too. A completion ends before the
    first of the ``stop`` strings. ``logprobs``: None, or for each token its log-probability and those of so many of
    the likeliest.
    """

    max_new_tokens: int = 64
    do_sample: bool = True
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    num_return_sequences: int = 1
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    seed: int = 42
    batch_size: int = 8

    @property
    def copies(self) -> int:
        """Rows of a batch that one prompt takes."""
        return 1 if self.num_beams > 1 else self.num_return_sequences

    def check(self) -> None:
        """Raise :class:`UserError` with everything that does not go together."""
        problems = Problems()
        for name in ("max_new_tokens", "num_return_sequences", "num_beams", "batch_size"):
            if getattr(self, name) < 1:
                problems.add(f"{getattr(self, name)} is less than 1", flag=f"--{name}")
        for name in ("temperature", "repetition_penalty", "top_p"):
            if not getattr(self, name) > 0:  # nan is not
                problems.add(f"{getattr(self, name)} must be above 0", flag=f"--{name}")
        for name in ("top_k", "no_repeat_ngram_size", "min_p", "logprobs"):
            if not (getattr(self, name) or 0) >= 0:
                problems.add(f"{getattr(self, name)} is less than 0", flag=f"--{name}")
        for name in ("top_p", "min_p"):
            if getattr(self, name) > 1:
                problems.add(f"{getattr(self, name)} is a probability and at most 1", flag=f"--{name}")
        if not math.isfinite(self.length_penalty):
            problems.add(f"{self.length_penalty} is no exponent", flag="--length_penalty")
        if "" in self.stop:
            problems.add("an empty text would end a completion before it begins", flag="--stop")
        if self.num_beams > 1 and self.do_sample:
            problems.add("a beam search takes the likeliest and does not sample; add --greedy", flag="--num_beams")
        if not self.do_sample and self.num_return_sequences > self.num_beams:
            problems.add(
                f"{self.num_return_sequences} completions need sampling or --num_beams "
                f"{self.num_return_sequences}: greedy decoding has only one",
                flag="--num_return_sequences",
            )
        problems.raise_if_any()
