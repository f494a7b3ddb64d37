"""``lmtrain sft``: train a causal language model on contexts and their completions."""

from __future__ import annotations

from lmtrain.cli.training import run

__all__ = ["run"]
