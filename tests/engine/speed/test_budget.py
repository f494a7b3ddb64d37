"""How many steps fit into a time, by a clock that the test turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from lmtrain.engine.speed import budget
from lmtrain.engine.speed.budget import StepClock, steps_within


@pytest.mark.parametrize(
    ("first", "each", "tried", "steps", "median"),
    [
        (1.0, 0.25, 8, (36 - 1 - 7 * 0.25) / 0.25, 0.25),
        (8.0, 4.0, 4, (36 - 8 - 3 * 4) / 4, 4.0),  # on a busy machine most of the time is left to the training
        (30.0, 30.0, 4, 1, 30.0),  # whatever happens, there is a step
    ],
    ids=["idle", "busy", "hopeless"],
)
def test_a_trial_takes_its_share_of_the_time(
    first: float, each: float, tried: int, steps: float, median: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])
    made: list[int] = []

    def trial(model: Any, clock: StepClock, most: int) -> None:
        control = TrainerControl()
        while len(made) < most and not control.should_training_stop:
            now[0] += each if made else first
            made.append(1)
            clock.on_step_end(TrainingArguments(), TrainerState(), control)

    class Model(torch.nn.Module):
        device = torch.device("cpu")

    assert steps_within(36.0, Model(), trial) == (int(steps), median)
    assert len(made) == tried
