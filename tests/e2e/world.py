"""Where a command-line test finds its models and its text."""

from __future__ import annotations

from typing import NamedTuple

TEXT = "".join(
    f"The {word} fox number {n} jumps over the lazy dog.\n" for n in range(200) for word in ("quick", "slow")
)


class World(NamedTuple):
    """Paths: checkpoints with their tokenizers inside, and a text."""

    gpt2: str
    bert: str
    text: str
