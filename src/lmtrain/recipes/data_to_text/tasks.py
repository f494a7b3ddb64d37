"""What is particular to each corpus: settings, and how its texts are made ready for scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lmtrain.data.nlg.text import Filter as Part


@dataclass(frozen=True, slots=True)
class Task:
    """``tokenize``, ``lower``: how texts are processed before they are scored; ``references``: how many references an
    input has for the scorer (None: all of them); ``parts``: of the test set that are scored apart.

    Settings are those published for LoRA on GPT-2 Medium and Large (Hu et al. 2021, Table 11; length penalty as in the
    commands of github.com/microsoft/LoRA, examples/NLG/README.md, where those differ).
    """

    name: str
    label_smoothing: float
    weight_decay: float
    lora_dropout: float
    length_penalty: float = 0.8
    tokenize: bool = False
    lower: bool = False
    references: int | None = None
    parts: tuple[Part, ...] = ("all",)


TASKS: Final = {
    "e2e": Task("e2e", 0.1, 0.01, 0.1),
    "webnlg": Task("webnlg", 0.1, 0.01, 0.1, tokenize=True, lower=True, references=6, parts=("unseen", "seen", "all")),
    "dart": Task("dart", 0.0, 0.0, 0.0, tokenize=True, lower=True, references=6),
}
