"""Callbacks that the trainer itself needs."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class CountTokens(TrainerCallback):
    """Keeps ``state.num_input_tokens_seen``: the real tokens, without padding, over all processes.

    The counts stay on the device and are read where someone looks at them (at a log line, an evaluation, a
    checkpoint), so that the device does not wait for Python at every step.
    """

    def __init__(self) -> None:
        self._pending: Tensor | None = None

    def add(self, tokens: Tensor) -> None:
        self._pending = tokens if self._pending is None else self._pending + tokens

    def read(self, state: TrainerState) -> None:
        if self._pending is not None:
            state.num_input_tokens_seen += int(self._pending.item())
            self._pending = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._pending = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if control.should_log or control.should_evaluate or control.should_save:
            self.read(state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.read(state)
