"""Signals to real processes: a verified checkpoint, exit code 75, and the same command goes on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from world import World

from forked import Forked
from lmtrain.cli import training
from lmtrain.cli.main import main
from lmtrain.core.console import amount
from lmtrain.core.runlog import read_events
from lmtrain.core.stopping import Stop
from lmtrain.engine.checkpoints.read import newest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")]
_LONG = 400  # steps: more than are made before the signal comes


def words(world: World, out: Path, *more: str) -> list[str]:
    run = (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --use_cpu "
        f"--save_strategy no --logging_steps 1 --output_dir {out}"
    )
    return [*run.split(), *more]


def start(world: World, out: Path, cache: Path, *more: str, terminal: str = "") -> Forked:
    environment = {**os.environ, "LMTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return Forked(["-m", "lmtrain", *words(world, out, *more)], env=environment, terminal=terminal)


def wait_for_steps(process: Forked, out: Path, meanwhile: Callable[[], object] = lambda: None) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        log = out / "metrics.jsonl"
        if log.is_file() and log.read_text().count('"loss"') >= 3:
            return
        assert process.poll() is None, process.communicate()[1]
        meanwhile()
        time.sleep(0.05)
    raise AssertionError("no step was made")


def state(out: Path) -> str:
    return str(json.loads((out / "status.json").read_text())["state"])


def test_a_signal_in_training_leaves_a_checkpoint_to_go_on_from(world: World, tmp_path: Path, own_cache: Path) -> None:
    out = tmp_path / "out"
    process = start(world, out, own_cache, "--max_steps", str(_LONG))
    wait_for_steps(process, out)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 75, said
    assert "the same command goes on" in said and "Traceback" not in said
    assert state(out) == "interrupted"
    found = newest(out)
    assert found.checkpoint is not None and not found.passed_over
    assert f"saved at step {found.step}" in said and found.step < _LONG
    again = start(world, out, own_cache, "--max_steps", str(_LONG), "--max_minutes", "10")
    said = again.communicate(timeout=240)[1]
    assert again.returncode == 0, said
    assert f"goes on from step {found.step}" in said and state(out) == "finished"
    trained = (event for event in read_events(out / "metrics.jsonl") if event["event"] == "train")
    tokens = {event["step"]: event["tokens"] for event in trained}
    now = f"{_LONG - found.step} of them since it went on · {amount(tokens[_LONG] - tokens[found.step])} tokens in"
    assert now in said


def test_so_does_a_terminal_that_is_closed(world: World, tmp_path: Path, own_cache: Path) -> None:
    """As by a connection that was lost: SIGHUP comes, and there is nowhere to write to any more."""
    out = tmp_path / "out"
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)

    def read() -> None:
        with suppress(BlockingIOError):
            os.read(ours, 1 << 16)

    process = start(world, out, own_cache, "--max_steps", str(_LONG), terminal=os.ttyname(theirs))
    try:
        wait_for_steps(process, out, read)
    finally:
        os.close(theirs)
        os.close(ours)
    assert process.wait(120) == 75 and state(out) == "interrupted"
    found = newest(out)
    assert f"SIGHUP; saved at step {found.step}" in (out / "logs" / "rank-0.log").read_text()


def test_the_time_that_was_allowed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a clock that goes on by half a minute whenever it is looked at, so that a busy machine is no slower."""
    seconds = itertools.count(step=30.0)
    monkeypatch.setattr(training, "Stop", partial(Stop, clock=lambda: next(seconds)))
    out = tmp_path / "out"
    assert main(words(world, out, "--max_steps", "40", "--max_minutes", "10", "--skip_check")) == 75
    assert "the 10 min 00 s of --max_minutes are over" in capsys.readouterr().err
    found = newest(out)
    assert found.checkpoint is not None and 10 < found.step < 20 and state(out) == "interrupted"


def test_before_the_first_step_there_is_nothing_to_save(world: World, tmp_path: Path, own_cache: Path) -> None:
    out = tmp_path / "out"
    text = tmp_path / "long.txt"
    text.write_text(Path(world.text).read_text() * 60)
    long = ("--eval_on_start", "True", "--validation_file", str(text), "--per_device_eval_batch_size", "1")
    process = start(world, out, own_cache, "--max_steps", "2", "--eval_strategy", "steps", "--skip_check", *long)
    until = time.monotonic() + 120
    while not (out / "status.json").is_file() or state(out) != "training":
        assert process.poll() is None and time.monotonic() < until, process.communicate()[1]
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 75 and state(out) == "interrupted", said
    assert "no step was made yet" in said and "Traceback" not in said
