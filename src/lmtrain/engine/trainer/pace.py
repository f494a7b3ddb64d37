"""What saving costs a run, and when it is to be thought of."""

from __future__ import annotations

import time
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtrain.engine.checkpoints.background import Written


class Saves(Protocol):
    """A trainer that may write a checkpoint while its steps go on."""

    @property
    def is_writing(self) -> bool: ...

    def settle_save(self) -> None: ...

    def prepare_buffers(self) -> None: ...


class Pace(TrainerCallback):
    """What saving costs: the pause, and how much slower the steps are while a save is written."""

    def __init__(self, trainer: Saves) -> None:
        self._trainer = trainer
        self.forget()

    def forget(self) -> None:
        self.prepared = False
        self.score: float | bool | None = False  # of the save under way, when it is the best
        self._pause = 0.0
        self._background = False
        self._began = False
        self._last: float | None = None
        self._usual: list[float] = []  # seconds of the last steps without a save
        self._meanwhile: list[float] = []

    def saved(self, step: int, pause: float, score: float | bool | None, background: bool) -> None:
        self._pause, self.score, self._background = pause, score, background
        self._meanwhile = []
        self._last = None  # the step that saves is no measure

    def report(self, written: Written) -> dict[str, Any]:
        cost = {
            "step": written.step,
            "bytes": written.bytes,
            "pause_seconds": round(self._pause, 4),
            "write_seconds": round(written.seconds, 4),
            "in_background": self._background,
        }
        if self._meanwhile and self._usual:
            cost["step_seconds"] = round(sum(self._usual) / len(self._usual), 4)
            cost["step_seconds_meanwhile"] = round(sum(self._meanwhile) / len(self._meanwhile), 4)
        self.score, self._meanwhile = False, []
        return cost

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        trainer = self._trainer
        if self._last is not None:
            seconds = time.perf_counter() - self._last
            if trainer.is_writing:
                self._meanwhile.append(seconds)
            else:
                self._usual = [*self._usual[-9:], seconds]
                trainer.settle_save()
        if not self._began:  # the optimizer has its state since this step
            self._began = True
            trainer.prepare_buffers()
