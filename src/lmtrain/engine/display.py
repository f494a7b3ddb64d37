"""How a run is shown: a bar in a terminal, plain lines in a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from lmtrain.core.console import counted, note
from lmtrain.engine.meter import WORTH_SAYING
from lmtrain.engine.runs.results import MASKED_PERPLEXITY

_SPACE = "  "


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

    def say(self, text: str) -> None:
        self._print(text)

    def evaluating(self, batches: int | None) -> None:
        pass

    def evaluated(self, step: int, figures: str | None) -> None:
        if figures is not None:
            self._print(f"step {step}  {figures}")

    def end(self) -> None:
        pass

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Noted(Lines):
    """The same lines for the log of the process (:mod:`lmtrain.core.ranklog`)."""

    def __init__(self) -> None:
        pass

    def _print(self, text: str) -> None:
        note(text)


class Terminal:
    """A bar that is drawn over itself; evaluations stay as lines above it."""

    def __init__(self, stream: IO[str]) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)  # names may hold [ and :
        self._bar: Bar | None = None
        self._training: TaskID | None = None
        self._evaluation: TaskID | None = None
        self._values: dict[str, Any] = {}

    def begin(self, step: int, last_step: int) -> None:
        bar = self._started()
        self._training = bar.add_task("train", total=last_step, completed=step, parts=[])

    def step(self, step: int, seconds_left: float | None) -> None:
        if self._bar is not None and self._training is not None:
            parts = _parts({**self._values, "time_left": seconds_left})
            self._bar.update(self._training, completed=step, parts=parts)

    def train(self, step: int, last_step: int, values: dict[str, Any]) -> None:
        self._values = values
        self.step(step, values.get("time_left"))

    def say(self, text: str) -> None:
        self._console.print(f"  {text}")

    def evaluating(self, batches: int | None) -> None:
        bar = self._started()
        if self._evaluation is None:
            self._evaluation = bar.add_task("evaluate", total=batches, parts=[])
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
                BarColumn(bar_width=min(30, max(6, self._console.width - 90))),
                MofNCompleteColumn(),
                _PartsColumn(Column(ratio=1)),  # what the others leave
                console=self._console,
                expand=True,
            )
            self._bar.start()
        return self._bar


class _PartsColumn(ProgressColumn):
    """The parts of a task, as many of the first as the column has room for."""

    def render(self, task: Task) -> _AsManyAsFit:
        return _AsManyAsFit(task.fields["parts"])


class _AsManyAsFit:
    def __init__(self, parts: Sequence[str]) -> None:
        self._parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fitting = len(self._parts)
        while fitting and len(_SPACE.join(self._parts[:fitting])) > options.max_width:
            fitting -= 1
        yield Text(_SPACE.join(self._parts[:fitting]))


def describe_train(values: dict[str, Any]) -> str:
    return _SPACE.join(_parts(values))


def _parts(values: dict[str, Any]) -> list[str]:
    """What is said of the steps since the last line, the most important first: a narrow terminal shows no more."""
    parts = (
        [f"loss {values['loss']:#.4g}"] if "loss" in values else []
    )  # with its zeros, so that they stand in a column
    if values.get("spike"):
        parts.append("spike")
    if values.get("bad_steps"):
        parts.append(f"{counted(values['bad_steps'], 'step')} without update")
    if values.get("tokens_per_second"):
        parts.append(f"{values['tokens_per_second']:,.0f} tok/s")
    if values.get("time_left") is not None:
        parts.append(f"{duration(values['time_left'])} left")
    if values.get("memory"):
        parts.append(f"{values['memory'] / 1e9:.1f} GB")
    if values.get("mfu") is not None:
        parts.append(f"MFU {values['mfu']:.0%}")
    if values.get("waiting_for_data", 0) > WORTH_SAYING:
        parts.append(f"waiting for data {values['waiting_for_data']:.0%}")
    return parts


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
