"""What is known of a training where something is chosen for it by trying: the trainer, as it is seen from below."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

from torch import Tensor
from transformers import TrainingArguments

from lmtrain.core.types import Examples
from lmtrain.objectives import Objective

Compile = Literal["auto", "on", "off"]


class Job(Protocol):
    """A model, its data, and passes over them. :class:`~lmtrain.engine.trainer.LMTrainer` is one, and says what each
    of these is."""

    model: Any
    args: TrainingArguments
    accelerator: Any
    train_dataset: Any
    objective: Objective
    compiles: Compile
    z_loss: float

    @property
    def fast_paths(self) -> object: ...

    @property
    def pads_training(self) -> bool: ...

    @property
    def tries_passes(self) -> bool: ...

    @property
    def is_sharded(self) -> bool: ...

    @property
    def planned_passes(self) -> int: ...

    def first_examples(self, count: int) -> Examples | None: ...

    def first_batch(self) -> dict[str, Tensor] | None: ...

    def batch_of(self, numbers: Sequence[int], dataset: Any = None) -> dict[str, Tensor]: ...

    def leaving_no_trace(self) -> AbstractContextManager[None]: ...

    def one_pass(self, batch: dict[str, Any]) -> None: ...
