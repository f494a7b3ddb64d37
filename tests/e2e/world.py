"""Where a command-line test finds its models and its text."""

from __future__ import annotations

from typing import NamedTuple


class World(NamedTuple):
    """Paths: checkpoints with their tokenizers inside, and a text."""

    gpt2: str
    bert: str
    text: str
