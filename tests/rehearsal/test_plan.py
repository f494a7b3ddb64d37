"""What a run will do, counted beforehand, against what the Trainer then does."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stages import stage_of

from lmtrain.cli.main import main
from lmtrain.core.console import silent
from lmtrain.core.errors import UserError
from lmtrain.engine.arguments import planned_steps
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.flops import Work
from lmtrain.rehearsal import plan as plans
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


def test_a_step_without_room_is_refused_and_the_copy_that_is_saved_from_needs_none(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = stage_of(f"{runs['gpt2']} --skip_check", tmp_path / "out").resolved
    monkeypatch.setattr(plans, "snapshot_bytes", lambda *_: 10**15)
    assert plans.make_plan(resolved, say=silent).snapshot == 10**15
    monkeypatch.setattr(plans, "free_here", lambda device: -(10**15))
    with pytest.raises(UserError, match="--per_device_train_batch_size: 8 examples at once take"):
        plans.make_plan(resolved, say=silent)


def test_processes_share_an_evaluation() -> None:
    validation = SimpleNamespace(lengths=np.array([300, 100]))

    def seconds(processes: int) -> float:
        work = Work(tokens=200, predicted=200, squares=0)
        anatomy: Any = SimpleNamespace(seconds={"forward": 0.5, "head": 1.5}, work=work, processes=processes)
        return plans._evaluation_seconds(anatomy, validation)

    assert seconds(1) == pytest.approx(400 * (0.5 + 0.5) / 200) and seconds(4) == seconds(1) / 4


def test_asked_to_stop_it_leaves_nothing(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plans, "write_speed", lambda scratch: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # which would end the tests
    try:
        code = main(["check", *runs["gpt2"].split(), "--skip_check", "--output_dir", str(tmp_path / "out")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 75 and "interrupted (SIGTERM); the same command begins anew" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("strategy", "every", "count"),
    [("no", 10, 0), ("steps", 10, 10), ("steps", 30, 4), ("steps", 0.25, 4), ("epoch", 10, 3), ("steps", 500, 1)],
)
def test_how_often_something_happens(strategy: str, every: float, count: int) -> None:
    assert times(strategy, every, 100, 2.4) == count
