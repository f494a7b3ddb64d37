"""``metrics.jsonl`` as numbers: read as far as it is written, whatever a killed run left in it.

A resumed run tells the steps after its checkpoint once more; what was told later counts. Half-written lines are passed
over and counted, and what a new start wrote behind one, on the same line, is read all the same.
"""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
TRAIN_CURVES: Final = (
    "loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "mfu",
    "tflops",
    "memory",
    "waiting_for_data",
)
"""What a ``train`` event may hold that is drawn: see :class:`lmtrain.engine.progress.Progress`."""
_COLUMNS: Final = ("step", "seconds", "tokens", *TRAIN_CURVES)
_READ: Final = _COLUMNS[2:]
_DECODER: Final = json.JSONDecoder()
_BEGINS: Final = '{"event": '  # of every line; inside a JSON string its quotes would be escaped


@dataclass(slots=True)
class Curve:
    """Values by step, steps ascending; ``seconds`` are those worked since the run began, pauses left out."""

    step: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def put(self, step: float, seconds: float, value: float) -> None:
        forget = bisect_left(self.step, step)
        for column in (self.step, self.seconds, self.values):
            del column[forget:]
        self.step.append(step)
        self.seconds.append(seconds)
        self.values.append(value)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the model wrote at ``step``, when the run had been started ``start`` times.

    ``fillings`` are those that a masked model finds likeliest, a text for each mask; ``completion`` then is the whole
    text. ``is_cut``: the longest that was allowed came before an end.
    """

    step: int
    prompt: str
    completion: str
    start: int = 0
    fillings: tuple[str, ...] = ()
    is_cut: bool = False


@dataclass(slots=True)
class History:
    """What a log tells, each step once.

    ``evaluations`` are curves by the name of the score (``eval_loss``). ``events`` is all else in
    the order of the log, with its ``seconds``; ``spikes`` are (step, loss). ``ranks`` are the ``ranks`` events, which
    hold the times of each process, with their ``seconds``. ``ignored`` counts lines that are none.
    """

    evaluations: dict[str, Curve] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    spikes: list[tuple[int, float]] = field(default_factory=list)
    ranks: list[dict[str, Any]] = field(default_factory=list)
    seconds_left: float | None = None
    ignored: int = 0
    starts: int = 0
    _rows: list[tuple[Any, ...]] = field(default_factory=list)  # of _COLUMNS, as they stood in the log
    _steps: list[float] = field(default_factory=list)
    _columns: dict[str, Column] | None = None
    _first: float | None = None  # the time of the first event
    _latest: float = 0.0
    _paused: float = 0.0

    @property
    def latest(self) -> float | None:
        """When the last event was, in seconds since the epoch; None where there was none."""
        return None if self._first is None else self._latest

    @property
    def seconds(self) -> float:
        """Worked so far, from the first event to the last, without the time between an end and the next start."""
        return self._latest - self._first - self._paused if self._first is not None else 0.0

    @property
    def train(self) -> dict[str, Column]:
        """Columns of one length: ``step``, ``seconds``, ``tokens`` and :data:`TRAIN_CURVES`, nan where there was no
        number."""
        if self._columns is None:
            columns = zip(*self._rows, strict=True) if self._rows else ((),) * len(_COLUMNS)
            self._columns = {name: _numbers(column) for name, column in zip(_COLUMNS, columns, strict=True)}
        return self._columns

    def take(self, event: dict[str, Any]) -> None:
        """Add the next event of the log."""
        time = number(event.get("time"))
        kind = event["event"]
        begins = kind == "status" and event.get("state") == "preparing"
        if math.isfinite(time):
            self._first = time if self._first is None else self._first
            if begins and self._latest:
                self._paused += max(time - self._latest, 0.0)
            self._latest = max(time, self._latest)
        self.starts += begins
        step = number(event.get("step"))
        if kind == "train" and math.isfinite(step):
            self._train(step, event)
        elif kind == "evaluation" and math.isfinite(step):
            self._evaluation(step, event)
        elif kind == "sample" and math.isfinite(step):
            self._sample(int(step), event)
        elif kind == "ranks" and math.isfinite(step):
            while self.ranks and number(self.ranks[-1].get("step")) >= step:
                self.ranks.pop()
            self.ranks.append({**event, "seconds_worked": self.seconds})
        else:
            self.events.append({**event, "seconds": self.seconds})

    def _train(self, step: float, event: dict[str, Any]) -> None:
        if self._steps and step <= self._steps[-1]:
            forget = bisect_left(self._steps, step)
            del self._steps[forget:], self._rows[forget:]
            self.spikes = [spike for spike in self.spikes if spike[0] < step]
        self._steps.append(step)
        self._rows.append((step, self.seconds, *map(event.get, _READ)))
        self._columns = None
        if event.get("spike"):
            self.spikes.append((int(step), number(event.get("loss"))))
        left = number(event.get("time_left"))
        self.seconds_left = left if math.isfinite(left) else None

    def _evaluation(self, step: float, event: dict[str, Any]) -> None:
        for name, value in event.items():
            if name not in ("event", "time", "step", "epoch") and not isinstance(value, bool):
                found = number(value)
                if math.isfinite(found) or isinstance(value, str):
                    self.evaluations.setdefault(name, Curve()).put(step, self.seconds, found)

    def _sample(self, step: int, event: dict[str, Any]) -> None:
        sample = Sample(
            step,
            str(event.get("prompt", "")),
            str(event.get("completion", "")),
            self.starts,
            _fillings(event.get("masks")),
            event.get("finished") is False,
        )
        if self.samples and self.samples[-1].start != self.starts:
            self.samples = [earlier for earlier in self.samples if earlier.step < step]
        self.samples.append(sample)


class Log:
    """The log at ``path``; :meth:`read` takes in what was written since the last call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start_over()

    def _start_over(self) -> None:
        self._history = History()
        self._offset = 0
        self._file: tuple[int, int] | None = None  # the device and number of the file read so far
        self._tail = b""
        self._ignored = 0

    def read(self) -> History:
        """Everything so far. Raises ``OSError`` when the file cannot be read."""
        with self.path.open("rb") as stream:
            about = os.fstat(stream.fileno())
            if about.st_size < self._offset or (about.st_dev, about.st_ino) != self._file:
                self._start_over()  # another run has taken its place
            self._file = (about.st_dev, about.st_ino)
            stream.seek(self._offset)
            new = stream.read()
        self._offset += len(new)
        whole, newline, self._tail = (self._tail + new).rpartition(b"\n")
        lines = whole.decode("utf-8", errors="replace").split("\n") if newline else []
        self._ignored += sum(not self._take(line) for line in lines)
        if self._take_whole(self._tail.decode("utf-8", errors="replace")):
            self._tail = b""  # an object that is complete cannot be the beginning of a longer line
        self._history.ignored = self._ignored + bool(self._tail)
        return self._history

    def _take(self, line: str) -> bool:
        """Whether it was an event, or empty."""
        if self._take_whole(line):
            return True
        behind = line.rfind(_BEGINS)
        if behind > 0 and (event := _event(line[behind:])) is not None:
            self._history.take(event)
        return not line.strip()

    def _take_whole(self, line: str) -> bool:
        if (event := _event(line)) is not None:
            self._history.take(event)
        return event is not None


def number(value: Any) -> float:
    """A number of the log, which writes nan and infinities as words; nan for anything else."""
    if type(value) is float:  # a hundred thousand times
        return value
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    return math.nan


def whole(value: Any) -> int:
    """A whole number of the log or a record; 0 for anything else."""
    found = number(value)
    return int(found) if math.isfinite(found) else 0


def listed(value: Any) -> list[Any]:
    """``value`` where it is a list, else a list of it; empty for None."""
    return value if isinstance(value, list) else [] if value is None else [value]


def mapping(value: Any) -> dict[str, Any]:
    """``value`` where it is a table, else an empty one."""
    return value if isinstance(value, dict) else {}


def _fillings(masks: Any) -> tuple[str, ...]:
    """``fox 43 %, dog 12 %`` for each mask."""
    found = []
    for candidates in masks if isinstance(masks, list) else []:
        known = [one for one in candidates if isinstance(one, dict)] if isinstance(candidates, list) else []
        found.append(", ".join(f"{one.get('token')} {number(one.get('probability')):.0%}" for one in known))
    return tuple(found)


def _numbers(column: tuple[Any, ...]) -> Column:
    try:
        return np.array(column, np.float64)  # None becomes nan, and "nan" and "inf" what they say
    except (TypeError, ValueError):
        return np.array([number(value) for value in column], np.float64)


def _object(line: str) -> dict[str, Any] | None:
    try:
        value, end = _DECODER.raw_decode(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not line[end:].strip() else None


def _event(line: str) -> dict[str, Any] | None:
    value = _object(line)
    return value if value is not None and isinstance(value.get("event"), str) else None
