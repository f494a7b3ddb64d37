"""From sums to the figures people read: perplexity, bits per byte. Losses are in nats per predicted token."""

from __future__ import annotations

import math


def perplexity(loss: float) -> float:
    """exp(loss); infinite where that overflows a float, NaN stays NaN."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def bits_per_byte(loss: float, tokens: int, n_bytes: int) -> float:
    """Bits that the model needs for a UTF-8 byte of the original text.

    ``loss`` (nats a token, over the predicted ones) is taken for all ``tokens`` of the text, end-of-text tokens
    included, whose text has ``n_bytes`` bytes. Unlike perplexity the figure compares across tokenizers, and with
    a compressor: bits per byte = loss / ln 2 · tokens / bytes (e.g. Gao et al., *The Pile*, 2020, section 3.1).
    """
    if n_bytes <= 0:
        return math.nan
    return loss / math.log(2) * tokens / n_bytes
