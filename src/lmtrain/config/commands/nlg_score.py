# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""Options of ``lmtrain nlg score``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import option


@dataclass
class NlgScoreOptions:
    """``lmtrain nlg score``: the official scores of a data-to-text task, with intervals and comparisons."""

    title: ClassVar[str] = "Scoring"

    task: Literal["e2e", "webnlg", "dart"] | None = option(
        None, "Which task's scorer to follow.", metavar="TASK", positional=True
    )
    predictions: str | None = option(
        None, "Generated texts, one a line; lmtrain nlg text makes them of token ids.", metavar="FILE"
    )
    references: list[str] = option(
        [],
        "References. E2E: one file, a blank line between inputs. WebNLG and DART: a file for each rank of references, "
        "or the name that reference0, reference1, ... begin with.",
        metavar="FILE",
    )
    against: str | None = option(None, "Another output of the same inputs to compare with.", metavar="FILE")
    lora_chain: bool = option(
        False,
        "First do to WebNLG and DART what the LoRA paper's chain does: lower case, signs set apart, the first six "
        "references.",
    )
    bootstrap: int = option(1000, "Resamples for intervals and tests; 0 leaves them out.", unit="resamples", at_least=0)
    seed: int = option(42, "Seed of the resampling.", at_least=0)
    json: bool = option(False, "Print one JSON object.")
