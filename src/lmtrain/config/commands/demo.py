"""The options of ``lmtrain demo``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmtrain.config.about import SEEDS, option


@dataclass
class DemoOptions:
    """``lmtrain demo``: tokenizer, model, evaluation and completions on Python's own standard library."""

    title: ClassVar[str] = "Demo"

    output_dir: str = option("runs/demo", "Folder for the run.", metavar="FOLDER")
    minutes: float = option(3.0, "Time to train.", unit="minutes", above=0)
    vocab_size: int = option(8192, "Size of the tokenizer's vocabulary.", unit="tokens", at_least=300)
    source: str | None = option(
        None,
        "A folder of text or code to learn from: its files in UTF-8, one in forty held out.",
        metavar="FOLDER",
        shown_default="Python's standard library",
    )
    seed: int = option(42, "Seed of everything drawn at random.", **SEEDS)
    overwrite_output_dir: bool = option(False, "Start anew when the folder holds an earlier demo.")
