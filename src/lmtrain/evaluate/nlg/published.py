"""Published figures to hold one's own against: Hu et al., *LoRA*, 2021 (arXiv 2106.09685).

Only what could be read at the source: E2E is the paper's Table 3 (microsoft/LoRA c4593f0,
examples/NLG/figures/LoRA_GPT2.PNG), WebNLG and DART are the BLEU columns of that repository's README. Shares are in
per cent as the paper prints them; :func:`in_paper_scale` brings a score of ours there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

TABLE_3 = "Hu et al. 2021, arXiv 2106.09685, Table 3"
README = "microsoft/LoRA c4593f0, README.md"


@dataclass(frozen=True, slots=True)
class Published:
    """One line of a table; ``spread`` is its confidence interval (plus or minus), where one is given."""

    task: Literal["e2e", "webnlg", "dart"]
    model: Literal["gpt2-medium", "gpt2-large"]
    method: Literal["lora", "full"]
    source: str
    values: dict[str, float]
    spread: dict[str, float] = field(default_factory=dict)


_E2E = ("BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr")


def _e2e(model: Literal["gpt2-medium", "gpt2-large"], method: Literal["lora", "full"], *figures: float) -> Published:
    spread = dict(zip(_E2E, figures[5:], strict=True)) if figures[5:] else {}
    return Published("e2e", model, method, TABLE_3, dict(zip(_E2E, figures[:5], strict=True)), spread)


PUBLISHED = (
    _e2e("gpt2-medium", "full", 68.2, 8.62, 46.2, 71.0, 2.47),
    _e2e("gpt2-medium", "lora", 70.4, 8.85, 46.8, 71.8, 2.53, 0.1, 0.02, 0.2, 0.1, 0.02),
    _e2e("gpt2-large", "full", 68.5, 8.78, 46.0, 69.9, 2.45),
    _e2e("gpt2-large", "lora", 70.4, 8.89, 46.8, 72.0, 2.47, 0.1, 0.02, 0.2, 0.2, 0.02),
    Published("webnlg", "gpt2-medium", "full", README, {"BLEU": 47.6}),
    Published("webnlg", "gpt2-medium", "lora", README, {"BLEU": 55.3}, {"BLEU": 0.2}),
    Published("webnlg", "gpt2-large", "full", README, {"BLEU": 54.2}),
    Published("webnlg", "gpt2-large", "lora", README, {"BLEU": 57.0}, {"BLEU": 0.1}),
    Published("dart", "gpt2-medium", "full", README, {"BLEU": 46.0}),
    Published("dart", "gpt2-medium", "lora", README, {"BLEU": 47.1}, {"BLEU": 0.2}),
    Published("dart", "gpt2-large", "full", README, {"BLEU": 46.5}),
    Published("dart", "gpt2-large", "lora", README, {"BLEU": 47.5}, {"BLEU": 0.1}),
)


def in_paper_scale(task: str, metric: str, value: float) -> float:
    """A score as the official program prints it, in the scale of the tables: shares of E2E in per cent."""
    return 100 * value if task == "e2e" and metric in ("BLEU", "METEOR", "ROUGE_L") else value
