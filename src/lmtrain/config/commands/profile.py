"""The options of ``lmtrain profile``; those of the run in question stand beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmtrain.config.about import option


@dataclass
class ProfileOptions:
    """``lmtrain profile clm|mlm``: where a step's time and memory go. The options of the run stand beside these."""

    title: ClassVar[str] = "Profile"

    steps: int = option(12, "Steps to measure, after a few to warm up.", unit="steps", at_least=1)
    json: bool = option(False, "Print the figures as one JSON object.")
