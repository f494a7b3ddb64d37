"""A run's folder: whose it is, what it records, and what overwriting leaves."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from lmtrain.core.errors import Lost, UserError
from lmtrain.core.files import read_json
from lmtrain.engine.runs.found import look
from lmtrain.engine.runs.run_folder import RunFolder

OPTIONS = {"learning_rate": 1e-3, "output_dir": "x", "train_file": ["a.txt"], "logging_steps": 10}


def begin(folder: Path, state: str = "training", step: int = 0) -> None:
    with RunFolder(folder) as run:
        run.describe("clm", ["--train_file", "a.txt"], OPTIONS)
        run.status(state, step=step)


def _hold(folder: str, ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with RunFolder(Path(folder)):
        ready.set()
        done.wait(30)


def test_two_processes_cannot_work_on_one_run(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready, done))
    process.start()
    try:
        assert ready.wait(30)
        with pytest.raises(UserError, match="another process"):
            look(tmp_path, "clm", OPTIONS, overwrite=False)
        with pytest.raises(UserError, match="another process"), RunFolder(tmp_path):
            pass
    finally:
        process.kill()  # a dead process holds nothing
        process.join()
    assert look(tmp_path, "clm", OPTIONS, overwrite=False).state == "new"


def test_overwriting_removes_what_is_ours_and_nothing_else(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "model.safetensors").write_text("old")
    (tmp_path / "eval_results.json").write_text("{}")
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / ".thesis.tex.swp.tmp").write_text("mine too")
    for name in ("status.json", "eval_results.json"):  # killed while it was written
        (tmp_path / f".{name}.0a1b2c3d.tmp").write_text("{")
    with RunFolder(tmp_path, overwrite=True):
        left = {p.name for p in tmp_path.iterdir()}
    assert left == {"thesis.tex", ".thesis.tex.swp.tmp", "run.lock", "metrics.jsonl", "logs"}


def test_an_error_is_written_into_the_status(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path) as run:
        run.status("training", step=3)
        _ = 1 / 0
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["step"], status["reason"]) == ("failed", 3, "division by zero")
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path):
        raise KeyboardInterrupt
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "interrupted"


def test_the_status_names_who_was_interrupted_where_that_is_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process, whose data cannot be read any more, ends; this one only sees that it is gone."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(Lost), RunFolder(tmp_path) as run:
        run.status("training", step=7)
        other = "==== start: rank 1 of 2\n==== interrupted: rank 1 on b: s3://data does not answer\n"
        (tmp_path / "logs" / "rank-1.log").write_text(other)
        raise Lost(f"{Lost.SAID}: connection closed")
    now = read_json(tmp_path / "status.json")
    line = "rank 1 on b was interrupted: s3://data does not answer; see logs/rank-1.log"
    assert now["state"] == "interrupted" and now["reason"] == f"{Lost.SAID}: connection closed; {line}"
    assert line in capsys.readouterr().err
