"""A run that was asked to stop ends after its step with a checkpoint, and goes on as the straight run, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_resumed_runs import assert_same, run
from transformers import TrainerCallback

from lmtrain.core.console import silent
from lmtrain.core.stopping import Stop
from lmtrain.engine.trainer import LMTrainer

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


@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("step", [2, 5, 7, 10, 15], ids=["epoch 0", "an edge", "epoch 1", "another", "the last step"])
def test_it_ends_after_the_step_and_goes_on_from_there(step: int, events: str, tmp_path: Path) -> None:
    options = {**EVENTS[events], "per_device_eval_batch_size": 1}
    straight = run("causal", tmp_path / "straight", **{**RARE, "save_strategy": "no"}, **options)
    straight.train()
    stopped("causal", tmp_path / "stopped", step, **options)
    resumed = run("causal", tmp_path / "stopped", **RARE, **options)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, straight)


@pytest.mark.parametrize(("events", "step"), [("evaluation by steps", 4), ("evaluation by epochs", 5)])
def test_an_evaluation_that_was_left_is_made_up_for(events: str, step: int, tmp_path: Path) -> None:
    options = {**EVENTS[events], "per_device_eval_batch_size": 1}
    straight = run("causal", tmp_path / "straight", **{**RARE, "save_strategy": "no"}, **options)
    straight.train()
    before = stopped("causal", tmp_path / "stopped", step, evaluating=True, **options)
    assert not any("eval_loss" in line for line in before.state.log_history if line["step"] == step)
    resumed = run("causal", tmp_path / "stopped", **RARE, **options)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, straight)


def test_without_a_plan_to_save_it_saves_all_the_same(tmp_path: Path) -> None:
    stop = Stop(say=silent)
    trainer = run("causal", tmp_path, AskAt(stop, 3), save_strategy="no")
    trainer.stop = stop
    with stop.deferred():
        trainer.train()
    assert (tmp_path / "checkpoint-3" / "manifest.json").is_file()


def test_a_limit_of_time_asks_before_it_is_reached(tmp_path: Path) -> None:
    clock = iter(range(1000))
    stop = Stop(minutes=0.1, say=silent, clock=lambda: float(next(clock)))  # each look at the clock takes a second
    trainer = run("causal", tmp_path, **RARE)
    trainer.stop = stop
    with stop.deferred():
        trainer.train()
    assert 0 < trainer.state.global_step <= 6
    assert "--max_minutes" in str(stop.reason)
