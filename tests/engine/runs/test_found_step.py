"""A step is one thing, however its size is written down and shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmtrain.core.errors import UserError
from lmtrain.engine.runs.found import look
from lmtrain.engine.runs.run_folder import RunFolder
from lmtrain.engine.sizing import _again
from lmtrain.engine.speed.batch_size import MicroBatch

OPTIONS: dict[str, Any] = {"learning_rate": 1e-3, "output_dir": "x", "train_file": ["a.txt"]}


def begin(folder: Path, monkeypatch: pytest.MonkeyPatch, step: int, processes: int, **options: object) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with RunFolder(folder) as run:
        run.describe("clm", [], {**OPTIONS, **options})
        run.decisions({"examples_a_step": step})
        run.status("training", step=0)


def said(folder: Path, monkeypatch: pytest.MonkeyPatch, processes: int, **options: object) -> str:
    """What is said of going on so; empty when nothing is in its way."""
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    try:
        look(folder, "clm", {**OPTIONS, **options}, overwrite=False)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("processes", "options"),
    [
        (2, {}),
        (1, {"global_batch_size": 16}),
        (4, {"global_batch_size": 16}),
        (4, {"global_batch_size": 16, "per_device_train_batch_size": 2}),
        (1, {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}),
    ],
)
def test_the_same_step_otherwise_divided(
    processes: int, options: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, monkeypatch, 16, 2)
    assert said(tmp_path, monkeypatch, processes, **options) == ""


@pytest.mark.parametrize(
    ("processes", "options", "says"),
    [
        (1, {}, "a step had 16 examples and has 8 with 1 process; --global_batch_size 16 keeps it"),
        (4, {}, "a step had 16 examples and has 32 with 4 processes; --global_batch_size 16 keeps it"),
        (2, {"global_batch_size": 32}, "--global_batch_size was None and is now 32"),
        (2, {"per_device_train_batch_size": 4}, "--per_device_train_batch_size was None and is now 4"),
        (2, {"global_batch_size": 16, "learning_rate": 1.0}, "--learning_rate was 0.001 and is now 1.0"),
    ],
)
def test_another_step_is_another_run(
    processes: int, options: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, monkeypatch, 16, 2)
    assert says in said(tmp_path, monkeypatch, processes, **options)
    assert said(tmp_path, monkeypatch, processes, **options, accept_changes=True) == ""


def test_a_finished_run_is_finished_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path, monkeypatch, 16, 2)
    with RunFolder(tmp_path) as run:
        run.status("finished", step=5)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert look(tmp_path, "clm", OPTIONS, overwrite=False).state == "finished"


@pytest.mark.parametrize(
    ("processes", "whole", "expected"),
    [(1, 16, (4, 4)), (2, 16, (4, 2)), (8, 16, (2, 1)), (1, 12, (4, 3)), (2, 12, (3, 2)), (1, None, (4, 2))],
)
def test_what_was_measured_holds_for_other_numbers_of_processes(
    processes: int, whole: int | None, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    again = _again(MicroBatch(4, 2, False, "measured"), whole)
    assert (again.examples, again.accumulation) == expected
