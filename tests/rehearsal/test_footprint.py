"""What a run was said to take, against what then lies there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stages import stage_of

from lmtrain.core.console import silent
from lmtrain.engine.assembly import train
from lmtrain.engine.speed.memory import needed_by
from lmtrain.engine.trainer import saving
from lmtrain.rehearsal.footprint import disk_of, evaluations_of, optimizer_bytes, snapshot_bytes

BEST = "--eval_strategy steps --eval_steps 1 --load_best_model_at_end --save_total_limit 1"


def tensors_in(folder: Path) -> int:
    files = [*folder.rglob("*.safetensors"), *folder.rglob("optimizer.pt")]
    return sum(file.stat().st_size for file in files)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gpt2", ""),
        ("gpt2", "--save_total_limit 1 --keep_optimizer_states 1"),
        ("gpt2", BEST),
        ("gpt2", "--save_only_model --save_total_limit 2"),
        ("gpt2", "--save_strategy no"),
        ("gpt2", "--optim sgd"),
        ("gpt2", "--optim adafactor"),
        ("muon", "--save_total_limit 2"),
        ("lora", ""),
        ("lora", "--keep_optimizer_states 1"),
        ("merged", "--save_total_limit 1"),
        ("grown bert, lora", ""),
    ],
)
def test_the_disk_that_a_run_takes(
    name: str, options: str, runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its fullest, while a checkpoint takes its name and before an older one goes, and at its end."""
    out = tmp_path / "out"
    stage = stage_of(f"{runs[name]} --max_steps 5 --save_steps 1 {options}", out)
    optimizer = optimizer_bytes(stage.resolved, stage.trainer)
    disk = disk_of(stage.resolved, stage.parts.model, out, 5, 1.0, optimizer=optimizer)
    fullest = [0]

    def tidy(folder: Path, *args: Any, **kwargs: Any) -> None:
        fullest.append(tensors_in(folder))
        real_tidy(folder, *args, **kwargs)

    real_tidy = saving.tidy
    monkeypatch.setattr(saving, "tidy", tidy)
    train(stage.resolved, say=silent)
    there = [path for path in out.iterdir() if path.name.startswith("checkpoint-")]
    assert len(there) == disk.kept or (options == BEST and len(there) in (1, 2)), "the best may be the last"
    assert sum((path / "optimizer.pt").is_file() for path in there) == min(disk.whole, len(there)) * bool(
        disk.optimizer
    ) or options.startswith(("--save_only_model", "--optim sgd"))
    records = 50_000 * disk.kept
    slack = 30_000 * (1 + disk.most)  # headers of each tensor, which weigh with models this small
    if options != BEST:
        assert abs(tensors_in(out) - (disk.stays - records)) < slack
        assert abs(max(fullest) - (disk.needed - 50_000 * disk.most - disk.export)) < slack
    assert tensors_in(out) < disk.needed + slack


def test_the_copy_that_is_saved_from(runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []

    real_copy = saving.Buffers.copy

    def copy(self: Any, tree: Any) -> Any:
        copied.append(self.needed(tree))
        return real_copy(self, tree)

    monkeypatch.setattr(saving.Buffers, "copy", copy)
    stage = stage_of(f"{runs['lora']} --save_steps 1", tmp_path / "out")
    expected = snapshot_bytes(stage.parts.model, needed_by(stage.parts.model)["optimizer"], stage.resolved, 10**9)
    train(stage.resolved, say=silent)
    assert copied[-1] == pytest.approx(expected, rel=0.02)
    assert snapshot_bytes(stage.parts.model, 100, stage.resolved, 0) == 0, "where there is no room for it"


@pytest.mark.parametrize(
    ("options", "count"),
    [("", 1), ("--eval_strategy steps --eval_steps 2", 3), (f"{BEST}", 6), ("--eval_strategy epoch", 1)],
)
def test_how_often_a_run_evaluates(options: str, count: int, runs: dict[str, str], tmp_path: Path) -> None:
    stage = stage_of(f"{runs['gpt2']} --max_steps 5 --save_steps 1 {options}", tmp_path / "out")
    assert evaluations_of(stage.resolved, 5, 0.5) == count


def test_an_optimizer_that_cannot_be_asked_counts_as_adamw(runs: dict[str, str], tmp_path: Path) -> None:
    stage = stage_of(runs["gpt2"], tmp_path / "out")
    trainer = stage.trainer
    trained = sum(p.numel() for p in trainer.model.parameters())
    assert optimizer_bytes(stage.resolved, trainer) == pytest.approx(8 * trained, rel=1e-3)
    trainer.args.optim = "no such"
    assert optimizer_bytes(stage.resolved, trainer) == 8 * trained
    assert torch.is_grad_enabled()
