"""What training has to do and how fast it does it: tokens, operations, seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtrain.engine.speed.machine import Peak
from lmtrain.models.flops import ModelFlops, Work

SPEED = ("tokens_per_second", "tflops", "mfu", "waiting_for_data")  # what a log line says of it; see Meter
WORTH_SAYING = 0.02  # a share of the time that waiting for data may take without a word


class Meter(TrainerCallback):
    """What the steps had to do, and how fast they did it. ``clock`` gives seconds.

    Keeps ``state.num_input_tokens_seen`` (the real tokens, without padding) and ``state.total_flos`` (model FLOPs, as
    :mod:`lmtrain.models.flops` counts them), both over all processes. The counts stay on the device and are read where
    someone looks at them (at a log line, an evaluation, a checkpoint), so that the device does not wait for Python
    at every step. ``peak`` None leaves out the utilisation, ``flops`` None everything about operations.
    """

    def __init__(
        self,
        flops: ModelFlops | None = None,
        peak: Peak | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._started = self._last_event = clock()
        self._paused = 0.0
        self.flops = flops
        self.peak = peak
        self.world = 1
        self._pending: Tensor | None = None
        self._newest: Tensor | None = None  # the last step's part of it
        self.waited = 0.0  # seconds that this process has waited for batches since training began
        self._first = self._mark = self._last = (0.0, 0, 0.0, 0.0)  # seconds, tokens, FLOPs, seconds waited

    @property
    def seconds(self) -> float:
        """Spent on training: what evaluating and saving took is taken out."""
        return self.clock() - self._started - self._paused

    def add(self, work: Tensor) -> None:
        """The work of a step over all processes: int64 (tokens, predicted positions, sum of squared lengths)."""
        self._pending = work if self._pending is None else self._pending + work
        self._newest = work

    def take_back(self) -> None:
        """Forget the step that was added last: it is going to be made again."""
        if self._pending is not None and self._newest is not None:
            self._pending = self._pending - self._newest
        self._newest = None

    def read(self, state: TrainerState) -> None:
        """Bring ``state`` up to date."""
        if self._pending is None:
            return
        work = Work(*(int(n) for n in self._pending.tolist()))
        self._pending = None
        state.num_input_tokens_seen += work.tokens
        if self.flops is not None:
            state.total_flos += self.flops.step(work)

    def waiting(self, batches: Iterator[Any]) -> Iterator[Any]:
        """``batches``, with the time that each takes to come counted."""
        while True:
            began = self.clock()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited += self.clock() - began
            yield batch

    def lap(self, state: TrainerState) -> dict[str, float]:
        """Speed since the last call; see :meth:`_speed`."""
        now = self._totals(state)
        speed = self._speed(self._mark, now)
        self._mark = now
        return speed

    def whole(self, state: TrainerState) -> dict[str, float]:
        """Speed from when this process began to train to the end of it, as results name it: ``train_mfu``."""
        return {f"train_{name}": value for name, value in self._speed(self._first, self._last).items()}

    @property
    def tokens(self) -> int:
        """Real ones, over all processes, that :meth:`whole` is about."""
        return self._last[1] - self._first[1]

    def _totals(self, state: TrainerState) -> tuple[float, int, float, float]:
        return self.seconds, state.num_input_tokens_seen, state.total_flos, self.waited

    def _speed(self, before: tuple[float, int, float, float], now: tuple[float, int, float, float]) -> dict[str, float]:
        """``tokens_per_second``; ``tflops``: 10¹² model FLOPs a second, over all processes; ``mfu``: that over the
        processes' measured peaks, 0.4 for 40 %; ``waiting_for_data``: this process's share of the time."""
        seconds, tokens, flops, waited = (later - earlier for later, earlier in zip(now, before, strict=True))
        if seconds <= 0:
            return {"tokens_per_second": 0.0}
        speed = {"tokens_per_second": round(tokens / seconds, 1)}
        if flops:
            speed["tflops"] = float(f"{flops / seconds / 1e12:.4g}")
            if self.peak is not None:
                speed["mfu"] = float(f"{flops / seconds / (self.peak.flops * self.world):.4g}")
        speed["waiting_for_data"] = round(waited / seconds, 4)
        return speed

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._started = self._last_event = self.clock()
        self._paused = 0.0
        self._pending, self._newest, self.waited, self.world = None, None, 0.0, args.world_size
        self._first = self._mark = (0.0, state.num_input_tokens_seen, state.total_flos, 0.0)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._last_event = self.clock()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._pause()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._pause()

    def _pause(self) -> None:
        """The time since the last step or event went into something other than training."""
        now = self.clock()
        self._paused += now - self._last_event
        self._last_event = now

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.read(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._pause()
        self.read(state)
        self._last = self._totals(state)


def step_work(batch: dict[str, Any], predicted: Tensor, device: torch.device) -> Tensor:
    """(tokens, predicted positions, sum of squared lengths) of a batch, int64 (3,), without waiting for the device."""
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    numbers: list[Tensor | int]
    if "segments" in batch:  # packed: the squares are the sums of the odd numbers up to each length
        real = batch["segments"].ne(0)
        numbers = [real.sum(), predicted, ((2 * batch["position_ids"] + 1) * real).sum()]
    elif mask is None or mask.ndim != 2:
        rows, length = ids.shape
        numbers = [rows * length, predicted, rows * length**2]
    else:
        lengths = mask.sum(-1)
        numbers = [lengths.sum(), predicted, lengths.square().sum()]
    return torch.stack([torch.as_tensor(n, dtype=torch.int64, device=device) for n in numbers])
