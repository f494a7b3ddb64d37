"""Published figures to hold one's own against: Hu et al., *LoRA*, 2021 (arXiv 2106.09685).

Numbers are as the paper prints them; :func:`in_paper_scale` brings a score of ours there. For training all weights on
WebNLG and DART the README of microsoft/LoRA has others, those of Li and Liang, 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmtrain.evaluate.nlg.tasks import METRICS


@dataclass(frozen=True, slots=True)
class Published:
    """One line of a table, about a ``part`` of the test set: WebNLG's categories that training has not seen, those that
    it has, or everything. ``spread`` is a confidence interval (plus or minus), where one is given."""

    task: Literal["e2e", "webnlg", "dart"]
    model: Literal["gpt2-medium", "gpt2-large"]
    method: Literal["lora", "full"]
    part: Literal["unseen", "seen", "all"]
    source: str
    values: dict[str, float]
    spread: dict[str, float]


_TABLES = {"e2e": 3, "dart": 13, "webnlg": 14}


def _row(
    task: Literal["e2e", "webnlg", "dart"],
    model: Literal["gpt2-medium", "gpt2-large"],
    method: Literal["lora", "full"],
    figures: tuple[float, ...],
    spread: tuple[float, ...] = (),
    part: Literal["unseen", "seen", "all"] = "all",
) -> Published:
    """``figures`` are in the order of the task's scores, and so is ``spread``, which may end before them."""
    source = f"Hu et al. 2021, arXiv 2106.09685, Table {_TABLES[task]}"
    named = dict(zip(METRICS[task], figures, strict=True))
    return Published(task, model, method, part, source, named, dict(zip(named, spread, strict=False)))


PUBLISHED = (
    _row("e2e", "gpt2-medium", "full", (68.2, 8.62, 46.2, 71.0, 2.47)),
    _row("e2e", "gpt2-medium", "lora", (70.4, 8.85, 46.8, 71.8, 2.53), (0.1, 0.02, 0.2, 0.1, 0.02)),
    _row("e2e", "gpt2-large", "full", (68.5, 8.78, 46.0, 69.9, 2.45)),
    _row("e2e", "gpt2-large", "lora", (70.4, 8.89, 46.8, 72.0, 2.47), (0.1, 0.02, 0.2, 0.2, 0.02)),
    _row("webnlg", "gpt2-medium", "full", (27.7, 0.30, 0.76), part="unseen"),
    _row("webnlg", "gpt2-medium", "full", (64.2, 0.45, 0.33), part="seen"),
    _row("webnlg", "gpt2-medium", "full", (46.5, 0.38, 0.53)),
    _row("webnlg", "gpt2-medium", "lora", (46.7, 0.38, 0.46), (0.4,), part="unseen"),
    _row("webnlg", "gpt2-medium", "lora", (62.1, 0.44, 0.33), (0.2,), part="seen"),
    _row("webnlg", "gpt2-medium", "lora", (55.3, 0.41, 0.39), (0.2,)),
    _row("webnlg", "gpt2-large", "full", (43.1, 0.38, 0.53), part="unseen"),
    _row("webnlg", "gpt2-large", "full", (65.3, 0.46, 0.33), part="seen"),
    _row("webnlg", "gpt2-large", "full", (55.5, 0.42, 0.42)),
    _row("webnlg", "gpt2-large", "lora", (48.4, 0.39, 0.45), (0.3,), part="unseen"),
    _row("webnlg", "gpt2-large", "lora", (64.0, 0.45, 0.32), (0.3,), part="seen"),
    _row("webnlg", "gpt2-large", "lora", (57.0, 0.42, 0.38), (0.1,)),
    _row("dart", "gpt2-medium", "full", (46.2, 0.39, 0.46)),
    _row("dart", "gpt2-medium", "lora", (47.1, 0.39, 0.46), (0.2,)),
    _row("dart", "gpt2-large", "full", (47.0, 0.39, 0.46)),
    _row("dart", "gpt2-large", "lora", (47.5, 0.39, 0.45), (0.1,)),
)


def in_paper_scale(task: str, metric: str, value: float) -> float:
    """A score as the official program prints it, in the scale of the tables: shares of E2E in per cent."""
    return 100 * value if task == "e2e" and metric in ("BLEU", "METEOR", "ROUGE_L") else value
