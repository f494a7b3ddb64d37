"""A short training that leaves nothing behind: the run's own trainer, without a run folder."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtrain.config.options import Resolved
from lmtrain.engine.making import make_trainer
from lmtrain.engine.parts import Parts
from lmtrain.engine.progress import Progress
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.quiet import quiet_libraries

# What a run does beside its steps, and what would write or send something.
_NOTHING_BESIDE: dict[str, Any] = {
    "eval_strategy": "no", "eval_on_start": False, "save_strategy": "no", "logging_strategy": "no",
    "load_best_model_at_end": False, "push_to_hub": False, "report_to": "none",
}  # fmt: skip


class _StopAfter(TrainerCallback):
    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_training_stop = state.global_step >= self._steps


@contextmanager
def short_run(resolved: Resolved, parts: Parts, steps: int, **changes: Any) -> Iterator[LMTrainer]:
    """A trainer of ``parts`` that stops after ``steps`` steps; ``changes`` are training arguments.

    Until then it is the run's own, planned for as many steps, since that decides what is worth compiling. It trains
    the model that it is given: copy it first where it is still needed.
    """
    with tempfile.TemporaryDirectory() as nowhere, quiet_libraries():  # the Trainer insists on a folder
        changes = {**_NOTHING_BESIDE, "output_dir": nowhere, **changes}
        callbacks = [Progress(stream=io.StringIO()), _StopAfter(steps)]
        yield make_trainer(resolved, parts, callbacks=callbacks, **changes)
