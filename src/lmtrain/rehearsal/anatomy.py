"""Where a step's time and memory go, measured on the run's own model, data and trainer.

The real trainer trains for a few steps while a stopwatch is switched from part to part at the borders that it passes
anyway: the loader, the model's body (by hooks), the loss, the backward pass, the update. Nothing else is added, so the
parts add up to the step and the step takes as long as it will in the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtrain.engine.arguments import planned_steps
from lmtrain.engine.speed.machine import Peak
from lmtrain.engine.speed.memory import PeakMemory, needed_by
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.flops import Work
from lmtrain.models.head import find_head

PARTS = ("data", "forward", "head", "backward", "optimizer", "other")
WARM_UP = 3  # steps that allocate memory, choose kernels and make the optimizer's state


@dataclass(frozen=True)
class Anatomy:
    """A step, as the mean of the middle half of those measured; where several ``processes`` train, one's share of it.

    ``seconds`` and ``flops`` are by part (:data:`PARTS`): ``forward`` and ``backward`` are the body's, ``head`` is the
    output head with the loss and the gradients of both. ``positions`` counts padding, ``work.tokens`` does not.
    ``memory`` holds bytes: weights, gradients, optimizer, program (what the process held before, without the weights;
    0 on a GPU), step (the rest: activations and what else a step needs) and peak. ``steps`` is how many were measured.
    """

    seconds: dict[str, float]
    flops: dict[str, float]
    work: Work
    positions: int
    micro_batch: int
    accumulation: int
    precision: str
    peak: Peak
    memory: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    processes: int = 1

    @property
    def tokens_per_second(self) -> float:
        """Over all processes."""
        return self.work.tokens * self.processes / self.step_seconds

    @property
    def step_seconds(self) -> float:
        return sum(self.seconds.values())

    @property
    def mfu(self) -> float:
        return sum(self.flops.values()) / self.step_seconds / self.peak.flops

    @property
    def padding(self) -> float:
        """Share of the positions that are padding."""
        return 1 - self.work.tokens / self.positions if self.positions else 0.0

    def share(self, *parts: str) -> float:
        """Of the step's time."""
        return sum(self.seconds[part] for part in parts) / self.step_seconds

    def as_dict(self) -> dict[str, Any]:
        rates = {
            "step_seconds": self.step_seconds,
            "tokens_per_second": self.tokens_per_second,
            "mfu": self.mfu,
            "padding": self.padding,
        }
        return {**rates, **asdict(self)}


def dissect(trainer: Any, steps: int) -> Anatomy:
    """Train for ``WARM_UP + steps`` steps and measure the last ``steps``. The trainer must stop there, and neither
    save nor evaluate; its model is not the same afterwards. A run of fewer steps is made longer."""
    if planned_steps(trainer.args, len(trainer.train_dataset)) < WARM_UP + steps:
        trainer.args.max_steps = WARM_UP + steps
    watch = _Watch(trainer.args.device)
    before = PeakMemory(trainer.args.device).start
    notes = _Notes(watch, trainer.args.device)
    trainer.add_callback(notes)
    with _observed(trainer, watch, notes):
        trainer.train()
    kept = needed_by(trainer.model, trainer.optimizer)
    return _summed_up(trainer, notes, watch.steps(), kept, before)


class _Watch:
    """Time by part: always one part runs. On a GPU the borders are events in its stream, read at the end."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._borders: list[tuple[str, Any]] = []  # (the part that begins, when); "" ends a step

    def switch(self, part: str) -> None:
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._borders.append((part, event))
        else:
            self._borders.append((part, time.perf_counter()))

    def steps(self) -> list[dict[str, float]]:
        """Seconds by part of each whole step."""
        if self._cuda:
            torch.cuda.synchronize()
        steps, now = [], dict.fromkeys(PARTS, 0.0)
        for (part, began), (following, ended) in zip(self._borders, self._borders[1:], strict=False):
            seconds = began.elapsed_time(ended) / 1000 if self._cuda else ended - began
            now[part or "other"] += seconds
            if not following:
                steps.append(now)
                now = dict.fromkeys(PARTS, 0.0)
        return steps


class _Notes(TrainerCallback):
    """What each step had to do, and the memory of the steps after the warm-up."""

    def __init__(self, watch: _Watch, device: torch.device) -> None:
        self._watch, self._device = watch, device
        self.works: list[torch.Tensor] = []
        self.positions = [0]
        self.memory: PeakMemory | None = None
        self.peak = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._watch.switch("")
        if state.global_step == WARM_UP - 1:
            self.memory = PeakMemory(self._device)
        if self.memory is not None:
            self.peak = self.memory.bytes
        self.positions.append(0)


@contextmanager
def _observed(trainer: Any, watch: _Watch, notes: _Notes) -> Iterator[None]:
    """Switch ``watch`` at the borders of the trainer's parts."""
    wrapped: list[tuple[Any, str]] = []

    def wrap(owner: Any, name: str, before: Callable[..., Any], after: Callable[[], Any]) -> None:
        original = getattr(owner, name)

        def around(*args: Any, **kwargs: Any) -> Any:
            before(*args, **kwargs)
            result = original(*args, **kwargs)
            after()
            return result

        wrapped.append((owner, name))
        setattr(owner, name, around)

    def to(part: str) -> Callable[..., None]:
        return lambda *_, **__: watch.switch(part)

    def begins_to_score(model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> None:
        notes.positions[-1] += inputs["input_ids"].numel()
        watch.switch("head")

    def ends_backward() -> None:
        watch.switch("optimizer" if trainer.accelerator.sync_gradients else "other")

    wrap(trainer, "get_batch_samples", to("data"), to("other"))
    wrap(trainer, "compute_loss", begins_to_score, to("other"))
    wrap(trainer.accelerator, "backward", to("head"), ends_backward)
    wrap(trainer.meter, "add", notes.works.append, lambda: None)
    handles = _body_hooks(trainer, watch)
    try:
        yield
    finally:
        for owner, name in wrapped:
            delattr(owner, name)  # the class's own again
        for handle in handles:
            handle.remove()


def _body_hooks(trainer: Any, watch: _Watch) -> list[Any]:
    """Switch to ``forward`` and back around the body, and to ``backward`` when its gradient is there.

    A body that cannot be told from the head counts as head, and so does a compiled one: hooks would cut its graph.
    """
    if trainer.args.torch_compile:
        return []
    try:
        body = find_head(trainer.model).body
    except LookupError:
        return []

    def ended(module: Any, inputs: Any, result: Any) -> None:
        watch.switch("head")
        if result[0].requires_grad:
            result[0].register_hook(lambda gradient: watch.switch("backward"))

    return [
        body.register_forward_pre_hook(lambda module, inputs: watch.switch("forward")),
        body.register_forward_hook(ended),
    ]


def _summed_up(
    trainer: LMTrainer, notes: _Notes, steps: Sequence[dict[str, float]], kept: dict[str, int], before: int
) -> Anatomy:
    measured = range(WARM_UP, len(steps))
    ranked = sorted(measured, key=lambda step: sum(steps[step].values()))
    cut = len(ranked) // 4  # the clock's outliers: another process had the core, or a collection of garbage
    middle = ranked[cut : len(ranked) - cut]
    world = trainer.args.world_size
    works = (torch.stack([notes.works[step] for step in middle]).double().mean(0) / world).tolist()
    work = Work(*(round(value) for value in works))
    program = 0 if trainer.args.device.type == "cuda" else max(0, before - kept["weights"])
    known = {**kept, "program": program}
    return Anatomy(
        {part: sum(steps[step][part] for step in middle) / len(middle) for part in PARTS},
        _flops(trainer, work),
        work,
        round(sum(notes.positions[step] for step in middle) / len(middle)),
        trainer.args.per_device_train_batch_size,
        trainer.args.gradient_accumulation_steps,
        trainer.peak.precision,
        trainer.peak,
        {**known, "step": max(0, notes.peak - sum(known.values())), "peak": notes.peak},
        len(measured),
        world,
    )


def _flops(trainer: LMTrainer, work: Work) -> dict[str, float]:
    flops = dict.fromkeys(PARTS, 0.0)
    if trainer.meter.flops is not None:
        there, back = trainer.meter.flops.forward(work), trainer.meter.flops.backward(work)
        flops["forward"] = there.body + there.attention
        flops["head"] = there.head + back.head
        flops["backward"] = back.body + back.attention
    return flops
