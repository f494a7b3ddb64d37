# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""Options of the samples that a training run writes at each evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmtrain.config.about import option
from lmtrain.config.sharding import sharding_of
from lmtrain.core.errors import Problems


@dataclass
class SampleOptions:
    """What the model is asked at each evaluation. The answers stand in the run's log; nothing else changes by them."""

    title: ClassVar[str] = "Samples"

    sample_prompts: list[str] = option(
        [],
        "Complete these prompts at each evaluation (masked models: fill their masks), and keep the answers in the run.",
        metavar="PROMPT",
    )
    sample_prompts_file: str | None = option(
        None,
        "A file of such prompts: one a line, or in the field `prompt` of each line of a .jsonl file.",
        metavar="FILE",
    )
    sample_max_new_tokens: int = option(64, "Longest completion.", unit="tokens", at_least=1)
    sample_temperature: float = option(
        0.0, "0 takes the likeliest token; above, tokens are drawn, the same way at each evaluation.", at_least=0
    )

    @property
    def wanted(self) -> bool:
        return bool(self.sample_prompts or self.sample_prompts_file)


def check_samples(
    samples: SampleOptions, training: dict[str, Any], trains: bool, evaluates: bool, problems: Problems
) -> None:
    """Add what stands in the way of samples; ``training`` are the arguments of the Trainer that were given."""
    if not samples.wanted:
        return
    flag = "--sample_prompts" if samples.sample_prompts else "--sample_prompts_file"
    if not trains:
        problems.add("shows how a model learns, and nothing is trained here; lmtrain generate completes", flag=flag)
    elif not evaluates:
        problems.add("are completed at each evaluation, and there is none; add --eval_strategy steps", flag=flag)
    if sharding := sharding_of(training):
        problems.add(f"needs the whole model on the first process, and {sharding.who} divides it", flag=flag)
