"""What a run shows: a bar in a terminal, plain lines in a file, events in ``metrics.jsonl``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, Any, Protocol

import psutil
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtrain.core.console import counted, told_to
from lmtrain.core.runlog import Events
from lmtrain.engine.callbacks import SPEED, WORTH_SAYING, TrainingClock
from lmtrain.engine.guarding import MARKS
from lmtrain.engine.results import MASKED_PERPLEXITY


class Display(Protocol):
    """Where progress is shown."""

    def begin(self, step: int, last_step: int) -> None: ...

    def step(self, step: int, seconds_left: float | None) -> None: ...

    def train(self, step: int, last_step: int, values: dict[str, Any]) -> None: ...

    def evaluating(self, batches: int | None) -> None: ...

    def evaluated(self, step: int, figures: str | None) -> None: ...

    def end(self) -> None: ...


class Lines:
    """One line an event, without carriage returns: for files, pipes and logs of a cluster."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def begin(self, step: int, last_step: int) -> None:
        self._print(f"train from step {step} to {last_step}" if step else f"train {counted(last_step, 'step')}")

    def step(self, step: int, seconds_left: float | None) -> None:
        pass

    def train(self, step: int, last_step: int, values: dict[str, Any]) -> None:
        self._print(f"step {step}/{last_step}  {describe_train(values)}")

    def evaluating(self, batches: int | None) -> None:
        pass

    def evaluated(self, step: int, figures: str | None) -> None:
        if figures is not None:
            self._print(f"step {step}  {figures}")

    def end(self) -> None:
        pass

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Terminal:
    """A bar that is drawn over itself; evaluations stay as lines above it."""

    def __init__(self, stream: IO[str]) -> None:
        self._console = Console(file=stream, highlight=False)
        self._bar: Bar | None = None
        self._training: TaskID | None = None
        self._evaluation: TaskID | None = None
        self._text = ""

    def begin(self, step: int, last_step: int) -> None:
        bar = self._started()
        self._training = bar.add_task("train", total=last_step, completed=step, text="")

    def step(self, step: int, seconds_left: float | None) -> None:
        if self._bar is not None and self._training is not None:
            left = "" if seconds_left is None else f"  {duration(seconds_left)} left"
            self._bar.update(self._training, completed=step, text=self._text + left)

    def train(self, step: int, last_step: int, values: dict[str, Any]) -> None:
        self._text = describe_train({**values, "time_left": None})
        self.step(step, values.get("time_left"))

    def evaluating(self, batches: int | None) -> None:
        bar = self._started()
        if self._evaluation is None:
            self._evaluation = bar.add_task("evaluate", total=batches, text="")
        bar.advance(self._evaluation)

    def evaluated(self, step: int, figures: str | None) -> None:
        if self._bar is not None and self._evaluation is not None:
            self._bar.remove_task(self._evaluation)
            self._evaluation = None
        if figures is not None:
            self._console.print(f"  step {step}  {figures}")
        if self._training is None:  # an evaluation without training around it
            self.end()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._training = self._evaluation = None

    def _started(self) -> Bar:
        if self._bar is None:
            self._bar = Bar(
                TextColumn("  {task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                console=self._console,
            )
            self._bar.start()
        return self._bar


class Progress(TrainerCallback):
    """Shows a run and writes it down.

    ``log`` receives an event where training begins (``begin``: step, steps in all, the model's parameters), at every
    logging step (``train``: step, epoch, tokens, loss, learning_rate, grad_norm, spike and bad_steps where there are
    such, time_left in seconds, memory in bytes, and the speed as :class:`Meter` measures it), at every evaluation
    (``evaluation``) and at the end of training (``trained``).
    ``terminal`` None looks whether ``stream`` (standard error, in a notebook standard output) is one. ``summaries``
    False: an evaluation that is no part of training is written down, but its figures are left to the caller to show.
    ``masked``: evaluations are of hidden tokens, as :class:`LMTrainer` says. Only the first process shows or writes
    anything.
    """

    masked = False

    def __init__(
        self,
        log: Events | None = None,
        *,
        stream: IO[str] | None = None,
        terminal: bool | None = None,
        summaries: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        stream = told_to() if stream is None else stream
        self.log = log
        self._time = TrainingClock(clock)
        self._first_step = 0
        self._summaries = summaries
        self._trains = False
        drawn = stream.isatty() if terminal is None else terminal
        self.display: Display = Terminal(stream) if drawn else Lines(stream)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        self._trains = True
        self._time.on_train_begin(args, state, control)
        self._first_step = state.global_step
        if state.is_world_process_zero:
            self.display.begin(state.global_step, state.max_steps)
            sizes = [weight.numel() for weight in model.parameters()] if model is not None else []
            self._event("begin", {"step": state.global_step, "steps": state.max_steps, "parameters": sum(sizes)})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._time.on_step_end(args, state, control)
        if state.is_world_process_zero:
            self.display.step(state.global_step, self._seconds_left(state))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            values = self._train_values(state, logs)
            self.display.train(state.global_step, state.max_steps, values)
            self._event("train", values)
        elif "train_runtime" in logs:
            self._event("trained", {"step": state.global_step, "tokens": state.num_input_tokens_seen, **logs})

    def _train_values(self, state: TrainerState, logs: dict[str, Any]) -> dict[str, Any]:
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
            "memory": memory_in_use(),
        }

    def _seconds_left(self, state: TrainerState) -> float | None:
        """For the remaining training steps, at the mean pace so far; None before the first step."""
        done = state.global_step - self._first_step
        return self._time.seconds / done * (state.max_steps - state.global_step) if done > 0 else None

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
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        self._time.on_evaluate(args, state, control)
        if state.is_world_process_zero and metrics:
            shows = self._trains or self._summaries
            said = describe_evaluation(metrics, masked=self.masked) if shows else None
            self.display.evaluated(state.global_step, said)
            self._event("evaluation", {"step": state.global_step, **metrics})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._time.on_save(args, state, control)

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


def memory_in_use() -> int:
    """Bytes: the most that tensors took on the GPU, or what the process holds in main memory."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)


def describe_train(values: dict[str, Any]) -> str:
    parts = [f"loss {values['loss']:.4g}"]
    if values.get("spike"):
        parts.append("spike")
    if values.get("bad_steps"):
        parts.append(f"{counted(values['bad_steps'], 'step')} without update")
    if values.get("tokens_per_second"):
        parts.append(f"{values['tokens_per_second']:,.0f} tok/s")
    if values.get("mfu") is not None:
        parts.append(f"MFU {values['mfu']:.0%}")
    if values.get("waiting_for_data", 0) > WORTH_SAYING:
        parts.append(f"waiting for data {values['waiting_for_data']:.0%}")
    if values.get("time_left") is not None:
        parts.append(f"{duration(values['time_left'])} left")
    if values.get("memory"):
        parts.append(f"{values['memory'] / 1e9:.1f} GB")
    return "  ".join(parts)


_SHOWN = {"loss": "loss {:.4f}", "perplexity": "perplexity {:.2f}", "bits_per_byte": "{:.3f} bits per byte"}


def describe_evaluation(metrics: dict[str, Any], *, masked: bool = False) -> str:
    """The figures of an evaluation by name, whatever its prefix (``eval_``, ``eval_books_``); ``masked``: of hidden
    tokens."""
    parts = []
    for name, value in metrics.items():
        prefix, _, rest = name.partition("_")
        for key, form in _SHOWN.items():
            if prefix == "eval" and (rest == key or rest.endswith(f"_{key}")):
                named = rest[: -len(key)].rstrip("_")
                shown = form.replace("perplexity", MASKED_PERPLEXITY) if masked else form
                parts.append((f"{named} " if named else "") + shown.format(value))
    return "evaluation  " + "  ".join(parts)


def duration(seconds: float) -> str:
    """0:58, 3:10 or 1:02:03."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
