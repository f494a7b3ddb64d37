"""The options of ``lmtrain verify-resume``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmtrain.config.about import option


@dataclass
class VerifyResumeOptions:
    """``lmtrain verify-resume clm|mlm|sft``: is a killed and resumed run the straight one? The run's options follow."""

    title: ClassVar[str] = "Verify"

    steps: int = option(6, "Steps of the run.", unit="steps", at_least=2)
    save_at: int | None = option(
        None,
        "Save a checkpoint at every so many steps; after the first one the run is killed.",
        unit="steps",
        at_least=1,
        shown_default="half of --steps",
    )
    json: bool = option(False, "Print the comparison as one JSON object.")
