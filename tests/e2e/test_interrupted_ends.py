"""Interrupted outside of the steps of a training: it ends with exit code 75, says so, and loses nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from world import World

from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode
from lmtrain.core.runlog import read_events
from lmtrain.engine import assembly
from lmtrain.engine.trainer import LMTrainer

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals are Unix's")
STEPS = 3
SCORED = ("--validation_file", "{text}", "--do_eval")


def command(world: World, out: Path, *more: str) -> list[str]:
    words = (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --use_cpu --skip_check "
        f"--per_device_train_batch_size 2 --logging_steps 1 --max_steps {STEPS} --do_train --output_dir {out}"
    ).split()
    return [*words, *(word.format(text=world.text) for word in more)]


def status(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "status.json").read_text())
    return found


def steps_made(out: Path) -> int:
    return sum("loss" in event for event in read_events(out / "metrics.jsonl"))


@pytest.fixture
def signalled_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a signal come as a part of the command begins, once."""

    def arrange(name: str, number: signal.Signals = signal.SIGTERM) -> None:
        part, sent = getattr(assembly, name), []

        def begins(*args: Any, **kwargs: Any) -> Any:
            if not sent:
                sent.append(number)
                os.kill(os.getpid(), number)
            return part(*args, **kwargs)

        monkeypatch.setattr(assembly, name, begins)

    return arrange


@pytest.fixture(scope="module")
def straight(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The scores of a run that nothing came in the way of."""
    out = tmp_path_factory.mktemp("straight")
    assert main(command(world, out, *SCORED, "--save_strategy", "no", "--data_cache_dir", str(out / "cache"))) == 0
    scores: dict[str, Any] = json.loads((out / "all_results.json").read_text())
    return scores


def test_in_a_first_preparation_the_status_says_so(
    world: World, tmp_path: Path, signalled_at: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of torchrun's exit code, which is 1, nobody could tell."""
    signalled_at("training_arguments")
    out = tmp_path / "out"
    assert main(command(world, out)) == ExitCode.INTERRUPTED
    now = status(out)
    assert (now["state"], now["step"], now["reason"]) == ("interrupted", 0, "SIGTERM; it was preparing")
    assert "the same command goes on" in capsys.readouterr().err
    assert main(command(world, out)) == 0 and status(out)["state"] == "finished"


def test_in_the_preparation_of_one_that_would_take_its_place_a_run_stays_as_it_is(
    world: World, tmp_path: Path, signalled_at: Callable[..., None]
) -> None:
    out = tmp_path / "out"
    assert main(command(world, out)) == 0
    before = status(out)
    signalled_at("training_arguments")
    assert main(command(world, out, "--overwrite_output_dir", "--seed", "1")) == ExitCode.INTERRUPTED
    assert status(out) == before and before["state"] == "finished"


@pytest.mark.parametrize(
    ("part", "number", "more"),
    [
        ("export_trained", signal.SIGTERM, ()),
        ("score", signal.SIGINT, ()),
        ("score", signal.SIGTERM, ("--resume_from_checkpoint", "never")),  # it said how the run began
    ],
    ids=["export", "scores", "scores, begun on purpose"],
)
def test_what_was_trained_without_a_checkpoint_is_written_first_and_not_trained_again(
    part: str,
    number: signal.Signals,
    more: tuple[str, ...],
    world: World,
    tmp_path: Path,
    straight: dict[str, Any],
    signalled_at: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    signalled_at(part, number)
    out = tmp_path / "out"
    words = command(world, out, *SCORED, "--save_strategy", "no", *more)
    assert main(words) == ExitCode.INTERRUPTED
    assert status(out)["state"] == "interrupted" and (out / "model.safetensors").is_file()
    assert not (out / "eval_results.json").exists() and number.name in capsys.readouterr().err
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "only scores are missing" in said and status(out)["state"] == "finished"
    assert steps_made(out) == STEPS, "none was made again"
    found = json.loads((out / "all_results.json").read_text())
    assert found["eval_loss"] == pytest.approx(straight["eval_loss"], rel=1e-5)
    assert found["train_loss"] == pytest.approx(straight["train_loss"], rel=1e-5)
    assert main(words) == 0 and "is finished" in capsys.readouterr().err


def test_missing_scores_are_those_asked_for_of_the_text_that_the_run_began_with(
    world: World, tmp_path: Path, signalled_at: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    signalled_at("score")
    out, held_out = tmp_path / "out", tmp_path / "held_out.txt"
    text = Path(world.text).read_text()
    held_out.write_text(text)
    words = command(world, out, "--validation_file", str(held_out), "--save_strategy", "no")
    assert main([*words, "--do_eval"]) == ExitCode.INTERRUPTED
    held_out.write_text(text * 2)
    assert main([*words, "--do_eval"]) == ExitCode.WRONG_INPUT
    assert "the validation text or its tokenizer has changed since the run in" in capsys.readouterr().err
    held_out.write_text(text)
    assert main(words) == 0
    assert "only scores are missing" in capsys.readouterr().err and status(out)["state"] == "finished"
    assert steps_made(out) == STEPS and not (out / "eval_results.json").exists(), "the second time without --do_eval"


@pytest.mark.parametrize("part", ["export_trained", "is_saved"])  # the second: while it looks for the last save
def test_where_the_last_step_is_saved_the_export_does_not_wait(
    part: str, world: World, tmp_path: Path, signalled_at: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    signalled_at(part)
    out = tmp_path / "out"
    words = command(world, out, "--save_strategy", "steps", "--save_steps", str(STEPS))
    assert main(words) == ExitCode.INTERRUPTED
    assert not (out / "export.json").exists() and status(out)["step"] == STEPS
    assert main(words) == 0
    said = capsys.readouterr().err
    assert f"goes on from step {STEPS}" in said and steps_made(out) == STEPS
    assert f"{STEPS} steps, none of them since it went on · loss" in said and "tokens/s" not in said


def test_where_nothing_is_left_but_the_export_the_run_finishes(
    world: World, tmp_path: Path, signalled_at: Callable[..., None]
) -> None:
    signalled_at("export_trained")
    out = tmp_path / "out"
    assert main(command(world, out, "--save_strategy", "no")) == 0
    assert status(out)["state"] == "finished" and (out / "export.json").is_file()


def test_too_little_memory_in_a_step_is_no_fault_of_ours(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, step = command(world, tmp_path / "run", "--save_steps", "1"), LMTrainer.training_step

    def lacks_memory(self: LMTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == STEPS - 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(LMTrainer, "training_step", lacks_memory)
        assert main(words) == ExitCode.WRONG_INPUT
    said = " ".join(capsys.readouterr().err.split())
    assert "--per_device_train_batch_size there was too little memory after step 2 (CUDA out of memory." in said
    assert "with --auto_batch fewer examples" in said and "Traceback" not in said
    assert status(tmp_path / "run")["state"] == "failed"
    assert main(words) == ExitCode.OK and "goes on from step 2" in capsys.readouterr().err
