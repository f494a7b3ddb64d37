"""How many examples go through the model at once: found by trying, without changing what a step computes.

A step sums over its examples and divides once, so 1 × 8 examples, 2 × 4 and 8 × 1 are the same step (with dropout:
other draws of the same distribution). What differs is memory and speed, and both are measured with the run's own
model, loss and longest examples.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments

from lmtrain.config.global_batch import Division
from lmtrain.core.clock import now
from lmtrain.core.console import amount, counted
from lmtrain.core.errors import UserError
from lmtrain.engine.speed.job import Job
from lmtrain.engine.speed.memory import PeakMemory, free_here, needed_by

# The library's name for computing activations twice, as an argument and in its methods, since 5.23 and before
CHECKPOINTING = "activation_checkpointing"
if not hasattr(TrainingArguments, CHECKPOINTING):
    CHECKPOINTING = "gradient_checkpointing"

_USABLE = 0.9  # of the memory that is free: allocators waste some, and other programs want some
_AS_FAST = 0.95  # of the best speed: what the clock cannot tell from it
_APART = 1.4  # sizes closer than that are not worth a trial
_BUDGET_S = 20.0
_REPEATS = 3


@dataclass(frozen=True)
class MicroBatch:
    """What was chosen; ``measured`` holds for each size tried its examples a second and bytes. For ``decisions.json``,
    and from there to the next start of the run."""

    examples: int
    accumulation: int
    checkpointing: bool
    reason: str
    measured: tuple[dict[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def arguments(self) -> dict[str, Any]:
        """As :class:`transformers.TrainingArguments` takes it."""
        sizes = Division(self.examples, self.accumulation).arguments
        return {**sizes, CHECKPOINTING: True} if self.checkpointing else sizes


@dataclass(frozen=True, slots=True)
class _Tried:
    examples: int
    seconds: float
    bytes: int

    @property
    def speed(self) -> float:
        return self.examples / self.seconds


def closest_to(batch_tokens: int, lengths: np.ndarray, world: int) -> int:
    """How many examples of a process come closest to ``batch_tokens`` tokens a step over all processes."""
    return max(1, round(batch_tokens / float(lengths.mean()) / world))


def sizes(examples: int) -> list[int]:
    """The micro-batches that make up a step of ``examples`` exactly, smallest first, close ones left out."""
    found = [n for n in range(1, examples + 1) if examples % n == 0]
    kept = found[:1]
    for size in found[1:-1]:
        if size >= _APART * kept[-1] and found[-1] >= _APART * size:
            kept.append(size)
    return kept + found[1:][-1:]


def choose_micro_batch(trainer: Job, examples: int) -> MicroBatch:
    """Try the micro-batches of a step of ``examples`` (those of one process) and take one.

    On a GPU the largest of those that fit and are as fast as the best; on a CPU, where more examples at once are no
    faster from some size on, the smallest. Recomputing activations (gradient checkpointing) is chosen only when not
    even one example fits without. The model's weights, gradients and random stream are left as they were. Takes about
    20 s, more where one micro-batch takes long. Raises :class:`UserError` when nothing fits.
    """
    _ = trainer.fast_paths  # tried now, so that neither its time nor its memory is taken for a batch's
    candidates = _same_training(trainer, sizes(examples), examples)
    chosen = None
    if not getattr(trainer.args, CHECKPOINTING):
        chosen = _tried(trainer, candidates, examples)
    if chosen is None and getattr(trainer.model, "supports_gradient_checkpointing", False):
        chosen = _tried(trainer, candidates, examples, checkpointing=True)
    if chosen is None:
        free = amount(free_here(trainer.args.device), "B")
        raise UserError(
            f"not even {counted(candidates[0], 'example')} at a time fits into the {free} that are free; use a smaller "
            "model or shorter examples",
            flag="--auto_batch",
        )
    return chosen


def _same_training(trainer: Job, candidates: list[int], examples: int) -> list[int]:
    """Where short batches are dropped, those sizes that drop as many examples as the one asked for."""
    if not trainer.args.dataloader_drop_last:
        return candidates
    asked = trainer.args.per_device_train_batch_size
    asked = asked if examples % asked == 0 else examples

    dataset: Any = trainer.train_dataset

    def kept(size: int) -> int:
        return len(dataset) // (size * trainer.args.world_size) * size

    return [size for size in candidates if kept(size) == kept(asked)] or [asked]


def _tried(trainer: Any, candidates: list[int], examples: int, *, checkpointing: bool = False) -> MicroBatch | None:
    """The best of the candidates that fit, or None. Processes agree on the smallest that one of them found."""
    model, device = trainer.model, trainer.args.device
    if checkpointing:
        getattr(model, f"{CHECKPOINTING}_enable")({"use_reentrant": False})
    try:
        with trainer.leaving_no_trace():
            tried = _Trials(trainer).run(candidates)
    finally:
        if checkpointing:
            getattr(model, f"{CHECKPOINTING}_disable")()
    mine = _best(tried, largest=device.type != "cpu").examples if tried else 0
    if trainer.args.world_size > 1:
        mine = int(trainer.accelerator.gather(torch.tensor([mine], device=device)).min())
    if not mine:
        return None
    measured = tuple(
        {"examples": t.examples, "examples_per_second": round(t.speed, 3), "bytes": t.bytes} for t in tried
    )
    return MicroBatch(mine, examples // mine, checkpointing, _reason(tried, mine, checkpointing), measured)


def _best(tried: Sequence[_Tried], *, largest: bool) -> _Tried:
    enough = _AS_FAST * max(t.speed for t in tried)
    as_fast = [t for t in tried if t.speed >= enough]
    return as_fast[-1] if largest else as_fast[0]


def _reason(tried: Sequence[_Tried], chosen: int, checkpointing: bool) -> str:
    shown = ", ".join(f"{t.examples}: {t.speed:.3g}" for t in tried)
    recomputed = "; only with activations computed twice does one fit" if checkpointing else ""
    return f"examples a second by micro-batch: {shown}{recomputed}"


class _Trials:
    """Forward and backward passes over the longest examples, timed, with the memory that they add."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._device = trainer.args.device
        lengths = getattr(trainer.train_dataset, "lengths", None)
        self._order = np.arange(len(trainer.train_dataset))
        if lengths is not None:
            self._order = np.argsort(-np.asarray(lengths), kind="stable")
        # What is not there yet but will be at every step
        self._later = needed_by(trainer.model)["optimizer"]
        self._limit = int(_USABLE * free_here(self._device))

    def run(self, candidates: Sequence[int]) -> list[_Tried]:
        """Those that fit, from the smallest on, until one does not, none gets faster, or the time is up."""
        tried: list[_Tried] = []
        memory = PeakMemory(self._device)
        began = time.perf_counter()
        for size in candidates:
            if tried and self._would_not_fit(tried, size):
                break
            seconds = self._seconds(size)
            taken = memory.bytes - memory.start + self._later
            if seconds is None or taken > self._limit:
                break
            tried.append(_Tried(size, seconds, taken))
            best = max(t.speed for t in tried)
            slower = len(tried) > 2 and all(t.speed < _AS_FAST * best for t in tried[-2:])
            if slower or time.perf_counter() - began > _BUDGET_S:
                break
        return tried

    def _would_not_fit(self, tried: Sequence[_Tried], size: int) -> bool:
        """Memory grows at most in proportion. On a GPU that is left to the trial, which may fail; in main memory the
        system would end the process."""
        last = tried[-1]
        return self._device.type == "cpu" and last.bytes * size / last.examples > self._limit

    def _seconds(self, size: int) -> float | None:
        """Of one micro-batch; None when the GPU's memory does not do."""
        try:
            batch = self._trainer.batch_of(self._order[:size].tolist())
            self._seconds_of_a_pass(batch)  # allocates
            return statistics.median(self._seconds_of_a_pass(batch) for _ in range(_REPEATS))
        except torch.OutOfMemoryError:
            return None
        finally:
            batch = None
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _seconds_of_a_pass(self, batch: dict[str, Any]) -> float:
        began = now(self._device)
        self._trainer.one_pass(batch)
        return now(self._device) - began
