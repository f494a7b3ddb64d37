# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""Key-token weighting as options: examples that hold certain words count for more in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmtrain.config.about import option
from lmtrain.core.errors import Problems


@dataclass
class KeyTokenOptions:
    """Which words make an example count for more, and how much."""

    title: ClassVar[str] = "Key tokens"

    key_tokens: list[str] = option(
        [],
        "Words such as plt,pd,fit,predict. The loss of a block is multiplied by alpha·(1 + how often it holds one of "
        "them); evaluation is not weighted, and also told apart for blocks with and without.",
        metavar="WORD,WORD,...",
        shown_default="none: every block counts alike",
    )
    key_token_alpha: float = option(
        1.0, "The alpha of it: a factor of the whole training loss and its gradient.", above=0, metavar="ALPHA"
    )

    @property
    def words(self) -> list[str]:
        """Each word once, in order; ``plt,pd`` and ``plt pd`` are the same."""
        words = (word.strip() for part in self.key_tokens for word in part.split(","))
        return list(dict.fromkeys(word for word in words if word))


def check_key_tokens(options: KeyTokenOptions, given: frozenset[str], problems: Problems) -> None:
    """Add what leaves the weighting without words. ``given``: the options that were typed."""
    if options.key_tokens and not options.words:
        problems.add("names no word; give some, such as plt,pd,fit,predict", flag="--key_tokens")
    if "key_token_alpha" in given and options.key_token_alpha != 1.0 and not options.key_tokens:
        problems.add("weighs key tokens; name some with --key_tokens, or leave this out", flag="--key_token_alpha")
