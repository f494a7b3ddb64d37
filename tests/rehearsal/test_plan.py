"""What a run will do, counted beforehand, against what the Trainer then does."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmtrain.engine.arguments import planned_steps
from lmtrain.engine.trainer import LMTrainer
from lmtrain.rehearsal.footprint import times
from tiny import MemoryLayout, arguments, llama, rows


@pytest.mark.parametrize(
    "options",
    [
        {"num_train_epochs": 1},
        {"num_train_epochs": 2, "gradient_accumulation_steps": 3},
        {"num_train_epochs": 1.5, "gradient_accumulation_steps": 2},
        {"num_train_epochs": 2, "per_device_train_batch_size": 4, "dataloader_drop_last": True},
        {"num_train_epochs": 2, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 4},
        {"num_train_epochs": 9, "max_steps": 5},
    ],
)
def test_the_trainer_makes_as_many_steps(options: dict[str, float], tmp_path: Path) -> None:
    args = arguments(tmp_path, **{"per_device_train_batch_size": 3, **options})
    trainer = LMTrainer(llama(), args, MemoryLayout(rows(23)))
    expected = planned_steps(args, 23)
    trainer.train()
    assert trainer.state.global_step == expected


@pytest.mark.parametrize(
    ("strategy", "every", "count"),
    [("no", 10, 0), ("steps", 10, 10), ("steps", 30, 4), ("steps", 0.25, 4), ("epoch", 10, 3), ("steps", 500, 1)],
)
def test_how_often_something_happens(strategy: str, every: float, count: int) -> None:
    assert times(strategy, every, 100, 2.4) == count
