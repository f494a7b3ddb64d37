"""What a run shows (:mod:`lmtrain.engine.display`), and the events in ``metrics.jsonl``."""

from __future__ import annotations

from typing import IO, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtrain.core.console import told_to
from lmtrain.core.runlog import Events
from lmtrain.engine.display import Lines, Noted, Terminal, describe_evaluation
from lmtrain.engine.distributed.ranks import Ranks
from lmtrain.engine.guarding import MARKS
from lmtrain.engine.meter import SPEED, Meter
from lmtrain.engine.speed.memory import memory_in_use
from lmtrain.models.sharding import count_of


class Progress(TrainerCallback):
    """Shows a run and writes it down.

    ``log`` receives an event where training begins (``begin``: step, steps in all, the model's parameters), at every
    logging step (``train``: step, epoch, tokens, loss, learning_rate, grad_norm, spike and bad_steps where there are
    such, time_left in seconds, memory in bytes, of several processes the one's that holds most, memory_rank, and the
    speed as :class:`Meter` measures it), at every evaluation
    (``evaluation``) and at the end of training (``trained``).
    ``terminal`` None looks whether ``stream`` (standard error, in a notebook standard output) is one. ``summaries``
    False: an evaluation that is no part of training is written down, but its figures are left to the caller to show.
    ``masked``: evaluations are of hidden tokens; ``ranks``: the processes' times, of which ``log`` receives an event
    (``ranks``) at every logging step; ``meter`` has the time; :class:`LMTrainer` sets all three. Only the first process
    of all shows or writes anything; what it shows stands in its log too.
    """

    masked = False
    ranks: Ranks | None = None
    meter: Meter | None = None

    def __init__(
        self,
        log: Events | None = None,
        *,
        stream: IO[str] | None = None,
        terminal: bool | None = None,
        summaries: bool = True,
    ) -> None:
        stream = told_to() if stream is None else stream
        self.log = log
        self._first_step = 0
        self._summaries = summaries
        self._trains = False
        drawn = stream.isatty() if terminal is None else terminal
        self.display: Terminal | Lines = Terminal(stream) if drawn else Lines(stream)
        self._noted = Noted()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        self._trains = True
        self._first_step = state.global_step
        if state.is_world_process_zero:
            for display in (self.display, self._noted):
                display.begin(state.global_step, state.max_steps)
            size = 0 if model is None else count_of(model)
            self._event("begin", {"step": state.global_step, "steps": state.max_steps, "parameters": size})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self.display.step(state.global_step, self._seconds_left(state))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            values = self._train_values(state, logs, args.device)
            for display in (self.display, self._noted):
                display.train(state.global_step, state.max_steps, values)
            self._event("train", values)
            self._tell_ranks()
        elif "train_runtime" in logs:
            self._event("trained", {"step": state.global_step, "tokens": state.num_input_tokens_seen, **logs})

    def _train_values(self, state: TrainerState, logs: dict[str, Any], device: torch.device) -> dict[str, Any]:
        left = self._seconds_left(state)
        return {
            "step": state.global_step,
            "epoch": state.epoch,
            "tokens": state.num_input_tokens_seen,
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            **{name: logs[name] for name in MARKS if name in logs},
            **{name: logs[name] for name in SPEED if name in logs},
            "time_left": None if left is None else round(left, 1),
            "memory": logs.get("memory", memory_in_use(device)),
            **{name: logs[name] for name in ("memory_rank",) if name in logs},
        }

    def _tell_ranks(self) -> None:
        ranks = self.ranks
        if ranks is None or ranks.newest is None:
            return
        self._event("ranks", ranks.newest.as_event(ranks.hosts))
        if ranks.line is not None:
            for display in (self.display, self._noted):
                display.say(ranks.line)

    def _seconds_left(self, state: TrainerState) -> float | None:
        """For the remaining training steps, at the mean pace so far; None before the first step."""
        done = state.global_step - self._first_step
        if self.meter is None or done <= 0:
            return None
        return self.meter.seconds / done * (state.max_steps - state.global_step)

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **_: Any,
    ) -> None:
        if state.is_world_process_zero:
            try:
                batches = len(eval_dataloader)
            except TypeError:  # an iterable data set
                batches = None
            self.display.evaluating(batches)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        if state.is_world_process_zero and metrics:
            shows = self._trains or self._summaries
            said = describe_evaluation(metrics, masked=self.masked) if shows else None
            for display in (self.display, self._noted):
                display.evaluated(state.global_step, said)
            self._event("evaluation", {"step": state.global_step, **metrics})

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trains = False
        if state.is_world_process_zero:
            self.display.end()

    def close(self) -> None:
        """Take the bar away, whatever happened."""
        self._trains = False
        self.display.end()

    def _event(self, kind: str, values: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.event(kind, **values)
