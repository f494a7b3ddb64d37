"""A look at what the model does, at each evaluation: on the first process, outside the time of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtrain.core.console import Say
from lmtrain.engine.runs.run_folder import RunFolder

_WIDTH = 110  # characters of a line

Look = Callable[[Any], list[dict[str, Any]]]
"""From the model to records, each with ``index``, ``prompt`` and ``completion``. Has to leave the model and the global
random generators as they were."""


class Looking(TrainerCallback):
    """Calls ``look`` with the model at each evaluation of a run that has begun, writes each record into it (an event
    ``sample`` with the step) and says them in one short block.

    Steps are looked at once, however many data sets are evaluated then. The other processes do not wait for the first
    one but at their next exchange, so ``look`` must not exchange anything. The trainer has to call this before the
    callbacks that keep time, so that what it takes is no time of training.
    """

    def __init__(self, look: Look, run: RunFolder, say: Say) -> None:
        self._look = look
        self._run = run
        self._say = say
        self._last: int | None = None

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        step = state.global_step
        if not state.is_world_process_zero or self._run.log is None or step == self._last:
            return
        self._last = step
        records = self._look(model)
        for record in records:
            self._run.event("sample", step=step, **record)
        self._say("sample", "\n".join([f"step {step}", *map(_line, records)]))


def _line(record: dict[str, Any]) -> str:
    text = f"{record['prompt']} ▸ {record['completion']}".replace("\r", "").replace("\n", "⏎")
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
