"""``lmtrain clm``: train a causal language model."""

from __future__ import annotations

from lmtrain.cli.training import run

__all__ = ["run"]
