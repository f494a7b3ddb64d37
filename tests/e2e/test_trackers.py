"""Live curves elsewhere: only where they were asked for."""

from __future__ import annotations

import json
import sqlite3
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


def test_a_tracker_that_fails_is_told_of_once_and_ends_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "full").write_text("where a folder should be")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "full" / "curves"))
    assert main([*command(world, tmp_path / "out"), "--report_to", "tensorboard"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("tensorboard failed") == 1 and "Traceback" not in printed.err
    assert printed.out == f"{tmp_path / 'out'}\n"
    assert [event["step"] for event in read_events(tmp_path / "out" / "metrics.jsonl") if event["event"] == "train"]


def run_in_two_parts(world: World, out: Path, tracker: str) -> None:
    """Four steps, and then two more of the same run."""
    words = [*command(world, out), "--report_to", tracker]
    words[words.index("no")] = "steps"
    assert main(words) == 0
    words[words.index("--max_steps") + 1] = "6"
    assert main([*words, "--extend"]) == 0


def test_tensorboard_shows_a_run_gone_on_with_as_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    run_in_two_parts(world, tmp_path / "book", "tensorboard")
    (folder,) = (tmp_path / "book" / "runs").iterdir()
    assert folder.name.startswith("book-") and len(list(folder.iterdir())) >= 2


def test_trackio_gets_every_figure_into_one_run(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trackio = pytest.importorskip("trackio")
    monkeypatch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", tmp_path / "tracked")
    run_in_two_parts(world, tmp_path / "book", "trackio")
    assert capsys.readouterr().out == f"{tmp_path / 'book'}\n" * 2, "the tracker's own words are no result"
    with sqlite3.connect(tmp_path / "tracked" / "huggingface.db") as tracked:
        rows = [(name, json.loads(said)) for name, said in tracked.execute("SELECT run_name, metrics FROM metrics")]
    assert len({name for name, _ in rows}) == 1 and rows[0][0].startswith("book-")
    told = list(read_events(tmp_path / "book" / "metrics.jsonl"))
    for theirs, kind, name in (("train/loss", "train", "loss"), ("eval/perplexity", "evaluation", "eval_perplexity")):
        ours = [(event["step"], event[name]) for event in told if event["event"] == kind]
        assert [(said["train/global_step"], said[theirs]) for _, said in rows if theirs in said] == ours


def test_wandb_gets_one_run_also_where_it_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    run_in_two_parts(world, tmp_path / "book", "wandb")
    assert capsys.readouterr().out == f"{tmp_path / 'book'}\n" * 2
    wandb.teardown()  # its own process writes the files
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1, "two parts of one run"
    assert b"eval/perplexity" in files[0].read_bytes() and b"train/loss" in files[1].read_bytes()


def test_wandb_without_a_login_ends_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setattr("sys.stdin", None)
    wandb.teardown()  # it reads its settings once
    assert main([*command(world, tmp_path / "out"), "--report_to", "wandb"]) == 0
    assert capsys.readouterr().err.count("wandb failed") == 1
