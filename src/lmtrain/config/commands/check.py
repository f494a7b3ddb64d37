"""The options of ``lmtrain check``; those of the run in question stand beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmtrain.config.about import option
from lmtrain.config.commands.outlook import OutlookOptions


@dataclass
class CheckOptions(OutlookOptions):
    """``lmtrain check clm|mlm``: the plan of a run, and all that stands in its way. The run's options as above."""

    title: ClassVar[str] = "Check"

    json: bool = option(False, "Print the plan as one JSON object.")
