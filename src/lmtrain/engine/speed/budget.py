"""How many steps fit into a time: measured on a twin of the model, by the very loop that will run."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_TRIAL_STEPS = 8
_UNCOUNTED = 2  # the first steps allocate memory and choose kernels
_SHARE = 0.15  # of the time, after which a trial ends as soon as one step was counted: a busy machine is slow at it too


class StepClock(TrainerCallback):
    """When each step ended, in seconds; ends the training at ``deadline`` when a step could be counted."""

    def __init__(self, deadline: float = math.inf) -> None:
        self.ends: list[float] = []
        self.deadline = deadline

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.ends.append(time.perf_counter())
        if self.ends[-1] > self.deadline and len(self.ends) > _UNCOUNTED + 1:
            control.should_training_stop = True

    @property
    def seconds_per_step(self) -> float:
        """The median of the steps after the first few."""
        gaps = [later - earlier for earlier, later in pairwise(self.ends)]
        return statistics.median(gaps[_UNCOUNTED:])


def steps_within(seconds: float, model: Any, trial: Callable[[Any, StepClock, int], None]) -> tuple[int, float]:
    """(steps that fit into ``seconds``, seconds of one step).

    ``trial`` trains the given copy of the model for the given number of steps with the given clock as callback. Model
    and random state are left as they were. The trial's own time is taken off.
    """
    began = time.perf_counter()
    clock = StepClock(began + seconds * _SHARE)
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        trial(copy.deepcopy(model), clock, _TRIAL_STEPS)
    left = seconds - (time.perf_counter() - began)
    return max(1, int(left / clock.seconds_per_step)), clock.seconds_per_step
