"""What a command says, keeps and returns when the disk is full or its folder goes away under it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from world import World

from interrupting import logged_losses
from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode
from lmtrain.core.runlog import read_events
from lmtrain.engine import assembly
from lmtrain.engine.checkpoints.read import newest
from no_room import allow_files_of, meanwhile

_TOO_SMALL = 40_000  # bytes: less than the weights, more than a record
_LONG = "--max_steps 400"  # more than are made before something happens


def command(world: World, out: Path, more: str = "") -> list[str]:
    return (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --use_cpu --skip_check "
        f"--per_device_train_batch_size 2 --logging_steps 1 --do_train --output_dir {out} {more}"
    ).split()


def status(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "status.json").read_text())
    return found


@pytest.fixture(autouse=True)
def room_again() -> Iterator[None]:
    yield
    allow_files_of(None)


def test_a_folder_that_goes_away_ends_the_run_with_its_own_exit_code(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a checkpoint nor the status can be written then."""
    real, out, elsewhere = tmp_path / "real", tmp_path / "out", tmp_path / "elsewhere"
    real.mkdir()
    out.symlink_to(real)
    (tmp_path / "file").write_text("")
    elsewhere.symlink_to(tmp_path / "file")
    with meanwhile((real / "checkpoint-1").is_dir, lambda: elsewhere.replace(out)):
        code = main(command(world, out, f"{_LONG} --save_steps 1 --max_failed_saves 2"))
    said = capsys.readouterr().err
    assert code == ExitCode.NO_SAVE_SUCCEEDED, said
    assert "1 thing to change before this can go on" in said and "the last 2 saves" in said
    assert "Traceback" not in said and "fault of lmtrain" not in said
    found = newest(real)
    assert found.checkpoint is not None and not found.passed_over


def test_an_interruption_says_what_is_kept_and_goes_on_otherwise_only_when_told_to(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"

    def fill_the_disk_and_interrupt() -> None:
        allow_files_of(_TOO_SMALL)
        os.kill(os.getpid(), signal.SIGTERM)

    first = command(world, out, "--max_steps 60 --save_steps 4 --save_total_limit 2")
    with meanwhile(logged_losses(out, 9), fill_the_disk_and_interrupt):
        assert main(first) == ExitCode.INTERRUPTED
    allow_files_of(None)
    said = capsys.readouterr().err
    found, step = newest(out), status(out)["step"]
    assert found.checkpoint is not None and found.step < step, "the last save found no room"
    told = f"SIGTERM; step {step} is not saved; the last checkpoint is {found.checkpoint.name}"
    assert f"interrupted ({told}); the same command goes on" in said
    warned = [line.getMessage() for line in caplog.records if "could not be saved" in line.getMessage()]
    assert f"checkpoint-{step} could not be saved" in warned[-1] and "training goes on" not in warned[-1]
    assert status(out)["state"] == "interrupted" and status(out)["reason"] == told
    optimizer = found.checkpoint / "optimizer.pt"
    whole = optimizer.read_bytes()
    optimizer.write_bytes(whole[:-1])
    assert newest(out).step == found.step - 4, "unless told otherwise, the one before is not reduced to weights yet"
    optimizer.write_bytes(whole)

    changed = [*first, "--learning_rate", "1e-3"]
    assert main(changed) == ExitCode.WRONG_INPUT
    assert "--accept_changes" in capsys.readouterr().err
    assert main([*changed, "--accept_changes"]) == 0
    assert f"goes on from step {found.step}" in capsys.readouterr().err
    rates = {line["step"]: line["learning_rate"] for line in read_events(out / "metrics.jsonl") if "loss" in line}
    assert rates[found.step + 1] == pytest.approx(1e-3 * (60 - found.step) / 60)


@pytest.mark.parametrize("kept", ["nothing", "weights"])
def test_an_interruption_that_leaves_nothing_to_go_on_from_says_so(
    kept: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def interrupt() -> None:
        if kept == "nothing":
            allow_files_of(_TOO_SMALL)
        os.kill(os.getpid(), signal.SIGTERM)

    with meanwhile(logged_losses(out), interrupt):
        code = main(command(world, out, f"{_LONG} --save_strategy no --save_only_model {kept == 'weights'}"))
    said = capsys.readouterr().err
    assert code == ExitCode.INTERRUPTED, said
    step = status(out)["step"]
    what = {"nothing": f"step {step} is not saved", "weights": f"of step {step} only the weights are saved"}[kept]
    assert what in said and "there is no earlier checkpoint to go on from); the same command begins anew" in said
    assert (out / f"checkpoint-{step}" / "model.safetensors").is_file() == (kept == "weights")


def test_a_full_disk_at_the_end_names_the_checkpoint_and_the_same_command_writes_the_rest(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    line = command(world, out, "--max_steps 3 --save_steps 3")
    export = assembly.export_trained

    def without_room(*args: Any) -> None:
        allow_files_of(_TOO_SMALL)
        export(*args)

    with monkeypatch.context() as patch:
        patch.setattr(assembly, "export_trained", without_room)
        assert main(line) == ExitCode.NO_SAVE_SUCCEEDED
    allow_files_of(None)
    said = capsys.readouterr().err
    assert "Traceback" not in said and "fault of lmtrain" not in said
    assert f"training has ended with step 3, and what it came to cannot be written (File too large: {out})" in said
    assert "checkpoint-3 holds it all: make room, and the same command writes what is missing" in said
    assert status(out)["state"] == "failed" and not (out / "config.json").exists()
    assert main(line) == 0
    assert "goes on from step 3" in capsys.readouterr().err and (out / "model.safetensors").is_file()
    steps = [event["step"] for event in read_events(out / "metrics.jsonl") if event["event"] == "train"]
    assert steps == [1, 2, 3], "nothing is trained twice"


def test_a_full_disk_when_the_model_is_written_costs_only_the_scores(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    line = command(world, out, "--max_steps 2 --save_strategy no --do_eval")
    score = assembly.score

    def without_room(*args: Any) -> Any:
        allow_files_of(0)
        return score(*args)

    with monkeypatch.context() as patch:
        patch.setattr(assembly, "score", without_room)
        assert main(line) == ExitCode.NO_SAVE_SUCCEEDED
    allow_files_of(None)
    said = capsys.readouterr().err
    assert f"The model lies complete in {out}: make room, and the same command adds the scores" in said
    assert main(line) == 0
    assert "only scores are missing" in capsys.readouterr().err and (out / "eval_results.json").is_file()


def test_early_stopping_from_the_command_line(world: World, tmp_path: Path) -> None:
    """With a learning rate that only makes it worse."""
    out = tmp_path / "out"
    worse = f"{_LONG} --learning_rate 1 --eval_strategy steps --eval_steps 1 --early_stopping_patience 2 --do_eval"
    line = command(world, out, f"{worse} --metric_for_best_model loss --max_eval_samples 4 --save_strategy no")
    assert main(line) == 0
    losses = [event["eval_loss"] for event in read_events(out / "metrics.jsonl") if event["event"] == "evaluation"]
    best = losses.index(min(losses[:-1]))
    assert status(out) | {"state": "finished", "step": best + 3} == status(out)
