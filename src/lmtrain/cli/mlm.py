"""``lmtrain mlm``: train a masked language model."""

from __future__ import annotations

from lmtrain.cli.training import run

__all__ = ["run"]
