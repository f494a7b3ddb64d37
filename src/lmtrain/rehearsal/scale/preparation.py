"""What it takes to tokenize a corpus once, from a measured rate."""

from __future__ import annotations

from dataclasses import dataclass

_MOST_IN_TWO_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Preparation:
    """``text`` bytes read and ``store`` bytes written for the tokens, ``seconds`` of each of the machines that share
    them, ``machine_seconds`` of all together."""

    text: float
    store: float
    seconds: float
    machine_seconds: float


def preparation(
    tokens: float, *, rate: float, bytes_per_token: float, vocabulary: int, machines: int = 1
) -> Preparation:
    """``rate``: bytes of text that one machine tokenizes and stores a second. Shards are independent
    (``lmtrain prepare --shard I/N``), so machines divide the time."""
    text = tokens * bytes_per_token
    width = 2 if vocabulary <= _MOST_IN_TWO_BYTES else 4
    return Preparation(text, tokens * width, text / rate / machines, text / rate)
