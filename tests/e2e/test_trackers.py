"""Live curves elsewhere: only where they were asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from world import World

from lmtrain.cli.main import main
from lmtrain.core.runlog import read_events


def command(world: World, out: Path) -> list[str]:
    return (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --max_steps 4 "
        f"--logging_steps 2 --eval_strategy steps --eval_steps 2 --save_strategy no --compile off --output_dir {out}"
    ).split()


TRACKERS = ("wandb", "trackio", "mlflow", "comet_ml", "clearml", "dvclive", "swanlab", "codecarbon", "flytekit")


def test_no_tracker_is_on_unless_named(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them are installed here, and none can be imported without being noticed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "curves"))
    found = tmp_path / "packages"
    for name in TRACKERS:
        (found / name).mkdir(parents=True)
        (found / name / "__init__.py").write_text("raise RuntimeError(__name__ + ' was imported')\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(found)
    assert main(command(world, tmp_path / "out")) == 0
    assert not (tmp_path / "curves").exists() and not list(tmp_path.rglob("*tfevents*"))
    assert main([*command(world, tmp_path / "named"), "--report_to", "wandb"]) == 1
    assert "wandb was imported" in capsys.readouterr().err, "so it would have been noticed"


def test_tensorboard_gets_the_curves_of_the_run_log(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "curves"))
    assert main([*command(world, tmp_path / "out"), "--report_to", "tensorboard"]) == 0
    found = loading.EventAccumulator(str(tmp_path / "curves")).Reload()
    told = list(read_events(tmp_path / "out" / "metrics.jsonl"))
    for tag, kind, name in (
        ("train/loss", "train", "loss"),
        ("train/learning_rate", "train", "learning_rate"),
        ("eval/loss", "evaluation", "eval_loss"),
        ("eval/perplexity", "evaluation", "eval_perplexity"),
    ):
        ours = {event["step"]: event[name] for event in told if event["event"] == kind}
        theirs = {scalar.step: scalar.value for scalar in found.Scalars(tag)}
        assert theirs.keys() == ours.keys() == {2, 4}
        assert list(theirs.values()) == pytest.approx(list(ours.values()), rel=1e-6), tag
