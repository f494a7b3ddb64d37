"""A run small enough to be killed many times."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from lmtrain.engine.checkpoints.policy import Saving
from lmtrain.engine.checkpoints.read import newest
from lmtrain.engine.progress import Progress
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, gpt2, rows


def trainer(folder: Path, steps: int = 6, *callbacks: Any, saving: Saving | None = None, **options: Any) -> LMTrainer:
    """Dropout on, two micro-batches a step, saving after every step."""
    args = arguments(
        folder, max_steps=steps, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        **{"save_strategy": "steps", "save_steps": 1, **options},
    )  # fmt: skip
    return LMTrainer(
        gpt2(dropout=0.1), args, MemoryLayout(rows(12)), objective=Causal(), saving=saving or Saving(background="on"),
        callbacks=[Progress(stream=io.StringIO()), *callbacks],
    )  # fmt: skip


def go_on(folder: Path, steps: int, ready: Any) -> None:
    """The same command again: from the newest checkpoint, or from the beginning. ``ready`` is set before training."""
    found = newest(folder)
    made = trainer(folder, steps, saving=Saving(background="on", keep_optimizer_states=2), save_total_limit=3)
    ready.set()
    made.train(resume_from_checkpoint=str(found.checkpoint) if found.checkpoint else None)
