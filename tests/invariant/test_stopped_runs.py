"""A run that was asked to stop ends after its step with a checkpoint, and goes on as the straight run, to the bit."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_resumed_runs import assert_same, run
from transformers import TrainerCallback

from lmtrain.core.console import silent
from lmtrain.core.errors import Interrupted
from lmtrain.core.stopping import SAME_MOMENT, Stop
from lmtrain.engine.trainer import LMTrainer, stopping

RARE = {"save_strategy": "steps", "save_steps": 100}  # only what stopping saves
EVENTS = {
    "no evaluation": {},
    "evaluation by steps": {"eval_strategy": "steps", "eval_steps": 2},
    "evaluation by epochs": {"eval_strategy": "epoch"},
}


class AskAt(TrainerCallback):
    """As a signal does: in a step, or while an evaluation after it is under way."""

    def __init__(self, stop: Stop, step: int, *, evaluating: bool = False) -> None:
        self.stop, self.step, self.evaluating = stop, step, evaluating

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step - 1 and not self.evaluating:
            self.stop.ask("SIGTERM")

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step and self.evaluating:
            self.stop.ask("SIGTERM")


def stopped(kind: str, folder: Path, step: int, *, evaluating: bool = False, **options: Any) -> LMTrainer:
    stop = Stop(say=silent)
    trainer = run(kind, folder, AskAt(stop, step, evaluating=evaluating), **RARE, **options)
    trainer.stop = stop
    with stop.deferred():
        trainer.train()
    assert trainer.state.global_step == step and trainer.is_asked_to_stop
    assert [path.name for path in sorted(folder.glob("checkpoint-*"))] == [f"checkpoint-{step}"]
    return trainer


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LMTrainer]:
    """The run that nobody stopped, by its evaluations."""

    @cache
    def one(events: str) -> LMTrainer:
        options = {**RARE, "save_strategy": "no", **EVENTS[events], "per_device_eval_batch_size": 1}
        trainer = run("causal", tmp_path_factory.mktemp("straight"), **options)
        trainer.train()
        return trainer

    return one


@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("step", [2, 5, 7, 10, 15], ids=["epoch 0", "an edge", "epoch 1", "another", "the last step"])
def test_it_ends_after_the_step_and_goes_on_from_there(
    step: int, events: str, straight: Callable[[str], LMTrainer], tmp_path: Path
) -> None:
    options = {**EVENTS[events], "per_device_eval_batch_size": 1}
    stopped("causal", tmp_path, step, **options)
    resumed = run("causal", tmp_path, **RARE, **options)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, straight(events))


@pytest.mark.parametrize(("events", "step"), [("evaluation by steps", 4), ("evaluation by epochs", 5)])
def test_an_evaluation_that_was_left_is_made_up_for(
    events: str, step: int, straight: Callable[[str], LMTrainer], tmp_path: Path
) -> None:
    options = {**EVENTS[events], "per_device_eval_batch_size": 1}
    before = stopped("causal", tmp_path, step, evaluating=True, **options)
    assert not any("eval_loss" in line for line in before.state.log_history if line["step"] == step)
    resumed = run("causal", tmp_path, **RARE, **options)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, straight(events))


def test_without_a_plan_to_save_it_saves_all_the_same(tmp_path: Path) -> None:
    stop = Stop(say=silent)
    trainer = run("causal", tmp_path, AskAt(stop, 3), save_strategy="no")
    trainer.stop = stop
    with stop.deferred():
        trainer.train()
    assert (tmp_path / "checkpoint-3" / "manifest.json").is_file()


def timed(folder: Path, minutes: float, *callbacks: Any, clock: list[float], **options: Any) -> LMTrainer:
    stop = Stop(minutes=minutes, say=silent, clock=lambda: clock[0])
    trainer = run("causal", folder, *callbacks, **{**RARE, **options})
    trainer.stop = stop
    with stop.deferred():
        trainer.train()
    assert "--max_minutes" in str(stop.reason) and trainer.was_stopped
    return trainer


class Takes(TrainerCallback):
    """Lets a clock go on: what a step, a batch of an evaluation and the samples behind it take, in seconds."""

    def __init__(self, clock: list[float], *, step: float = 0, batch: float = 0, samples: float = 0) -> None:
        self.clock, self.step, self.batch, self.samples, self.batches = clock, step, batch, samples, 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.clock[0] += self.step

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.clock[0] += self.batch
        self.batches += 1

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.clock[0] += self.samples


def test_a_limit_of_time_asks_before_it_is_reached(tmp_path: Path) -> None:
    clock = [0.0]
    trainer = timed(tmp_path, 0.1, Takes(clock, step=1.0), clock=clock)
    assert trainer.state.global_step == 5, "a sixth one would end with the time"
    assert (tmp_path / "checkpoint-5" / "manifest.json").is_file()


def test_a_limit_of_time_ends_an_evaluation(tmp_path: Path) -> None:
    clock = [0.0]
    takes = Takes(clock, step=1.0, batch=10.0)
    options = {**EVENTS["evaluation by steps"], "per_device_eval_batch_size": 1}
    trainer = timed(tmp_path, 0.5, takes, clock=clock, **options)
    assert trainer.state.global_step == 2 and clock[0] <= 30
    assert takes.batches == 2, "of four: what the third took would not fit"
    assert trainer.owes_evaluation and (tmp_path / "checkpoint-2" / "manifest.json").is_file()


def test_a_limit_of_time_leaves_room_for_samples(tmp_path: Path) -> None:
    clock = [0.0]
    trainer = timed(tmp_path, 1.0, Takes(clock, step=1.0, samples=20.0), clock=clock, **EVENTS["evaluation by steps"])
    assert trainer.state.global_step == 5, "it is second 45, and another 21 s would not fit"


def test_a_limit_of_time_leaves_room_for_a_first_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was measured yet: it goes by the bytes."""
    straight = run("causal", tmp_path / "straight", **RARE)
    numbers = sum(weight.numel() for weight in straight.model.parameters())
    monkeypatch.setattr(stopping, "_SLOW_DISK", 12 * numbers / 50)
    clock = [0.0]
    trainer = timed(tmp_path / "out", 1.0, Takes(clock, step=2.0), clock=clock)
    assert trainer.state.global_step == 4, "behind it are 52 of 60 seconds for a step and a save of 50"


def test_a_second_signal_does_not_wait_and_harms_nothing(straight: Callable[[str], LMTrainer], tmp_path: Path) -> None:
    clock = [0.0]

    class Twice(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                os.kill(os.getpid(), signal.SIGINT)
                clock[0] += 2 * SAME_MOMENT
                os.kill(os.getpid(), signal.SIGTERM)

    trainer = run("causal", tmp_path, Twice(), save_strategy="steps", save_steps=2)
    stop = Stop(say=silent, clock=lambda: clock[0])
    trainer.stop = stop
    with pytest.raises(Interrupted, match="a second signal"), stop.listening(), stop.deferred():
        trainer.train()
    assert [path.name for path in tmp_path.glob("*checkpoint-*")] == ["checkpoint-2"]
    resumed = run("causal", tmp_path, **RARE)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, straight("no evaluation"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no such signals")
def test_a_signal_to_the_workers_too_breaks_no_step(tmp_path: Path) -> None:
    """A scheduler and torchrun send it to the whole group of processes."""

    others = set(psutil.Process().children())  # of other tests

    class ToAll(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            workers = [str(worker.pid) for worker in set(psutil.Process().children()) - others]
            if state.global_step == 2:
                assert len(workers) == 2
                subprocess.run(["kill", "-TERM", str(os.getpid()), *workers], check=True)
                time.sleep(0.5)

    trainer = run("causal", tmp_path, ToAll(), **RARE, dataloader_num_workers=2)
    trainer.stop = stop = Stop(say=silent)
    with stop.listening(), stop.deferred():
        trainer.train()
    assert stop.reason == "SIGTERM" and trainer.state.global_step == 3
    assert (tmp_path / "checkpoint-3" / "manifest.json").is_file()
    deadline = time.monotonic() + 60
    del trainer
    gc.collect()
    while set(psutil.Process().children()) - others and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(psutil.Process().children()) - others, "they end with the loader"
