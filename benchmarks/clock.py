"""Times the steps of any ``transformers.Trainer``, ours and the stock one alike, from inside its process.

Both sides of a benchmark are children that call :func:`watch` before anything of theirs runs; it puts one callback
among the Trainer's defaults, so neither side is changed and both are read off the same clock.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Seconds and real tokens of every step after the first ``warm`` ones; ends the training when it has enough.

    Enough are ``steps`` steps, or as many as fit into ``seconds``, but never fewer than two. Tokens are right where
    every step is logged (``logging_steps`` 1): only then are they counted at every step.
    """

    def __init__(self, warm: int, steps: int, seconds: float) -> None:
        self.warm, self.steps, self.seconds = warm, steps, seconds
        self.ends: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[float] = []
        self.figures: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.figures["bytes_before"] = peak_bytes()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tokens.append(int(state.num_input_tokens_seen))  # of the steps before this one

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        measured = len(self.ends) - self.warm
        if measured >= self.steps or (measured >= 2 and self.ends[-1] - self.ends[self.warm - 1] > self.seconds):
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tokens.append(int(state.num_input_tokens_seen))
        first = self.warm - 1
        self.figures |= {
            "seconds": self.ends[-1] - self.ends[first],
            "steps": len(self.ends) - self.warm,
            "step_seconds": [after - before for before, after in pairwise(self.ends[first:])],
            "tokens": self.tokens[-1] - self.tokens[self.warm],
            "losses": self.losses,
            "peak_bytes": peak_bytes(),
        }


def watch(out: Path, warm: int, steps: int, seconds: float) -> Clock:
    """Let every Trainer of this process be timed; the figures go to ``out`` with :func:`write`."""
    clock = Clock(warm, steps, seconds)
    transformers.trainer.DEFAULT_CALLBACKS.append(clock)
    return clock


def peak_bytes() -> int:
    """The most memory of this process so far: what the GPU's allocator held, or what was resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # unlike ru_maxrss it does not begin with what the parent had
        return next(int(row.split()[1]) for row in status.read_text().splitlines() if row.startswith("VmHWM")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write(out: Path, figures: dict[str, Any]) -> None:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    out.write_text(json.dumps({**figures, "device": device}))
