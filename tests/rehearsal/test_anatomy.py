"""Each part of a step is measured where it runs: made slow, it shows there and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.flops import ModelFlops, Work
from lmtrain.objectives import Labelled
from lmtrain.rehearsal import anatomy as anatomies
from lmtrain.rehearsal.anatomy import PARTS, WARM_UP, dissect
from tiny import MemoryLayout, arguments, bert, gpt2, rows

STEPS = 4


class Clock:
    """Goes on only where something is slow, so that other work of the machine is no part of it."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def second(self, *_: Any) -> None:
        self.now += 1


def slow_layout(clock: Clock) -> MemoryLayout:
    class SlowLayout(MemoryLayout):
        def __getitems__(self, indices):
            clock.second()
            return super().__getitems__(indices)

    return SlowLayout([[5, 6, 7, 8]] * 40)


def slow_optimizer(clock: Clock) -> Callable[[Any], torch.optim.Optimizer]:
    class SlowSGD(torch.optim.SGD):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            clock.second()
            return super().step(*args, **kwargs)

    return lambda model: SlowSGD(model.parameters(), lr=0.1)


def trainer_of(folder: Path, model: Any, layout: Any = None, **options: Any) -> LMTrainer:
    args = arguments(folder, max_steps=WARM_UP + STEPS, logging_strategy="no", per_device_train_batch_size=4)
    return LMTrainer(model, args, layout or MemoryLayout([[5, 6, 7, 8]] * 8), **options)


SLOW: dict[str, Callable[[Any, Clock], Any]] = {
    "forward": lambda model, clock: model.transformer.h[0].register_forward_hook(clock.second),
    "head": lambda model, clock: model.lm_head.register_forward_pre_hook(clock.second),
    "backward": lambda model, clock: model.transformer.h[0].mlp.register_full_backward_hook(clock.second),
}


@pytest.mark.parametrize("part", ["data", "forward", "head", "backward", "optimizer"])
def test_time_is_found_where_it_goes(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clock = gpt2(), Clock()
    SLOW.get(part, lambda model, clock: None)(model, clock)
    layout = slow_layout(clock) if part == "data" else None
    make = slow_optimizer(clock) if part == "optimizer" else None
    trainer = trainer_of(tmp_path, model, layout, make_optimizer=make)
    monkeypatch.setattr(anatomies, "time", clock)
    assert dissect(trainer, STEPS).seconds == {**dict.fromkeys(PARTS, 0), part: 1}


def test_parts_add_up_to_the_step_and_its_work(tmp_path: Path) -> None:
    data = rows(8)
    trainer = trainer_of(tmp_path, gpt2(), MemoryLayout([data[0]] * 8))
    began = time.perf_counter()
    anatomy = dissect(trainer, STEPS)
    assert anatomy.steps == STEPS
    assert anatomy.step_seconds * STEPS < time.perf_counter() - began
    assert all(seconds > 0 for seconds in anatomy.seconds.values())
    length = len(data[0])
    assert anatomy.work == Work(4 * length, 4 * (length - 1), 4 * length**2)
    assert anatomy.padding == 0
    assert sum(anatomy.flops.values()) == pytest.approx(ModelFlops.of(gpt2(), causal=True).step(anatomy.work))
    assert 0 < anatomy.mfu < 1
    assert anatomy.share("forward", "backward", "head", "data", "optimizer", "other") == pytest.approx(1)


def test_padding_and_accumulation_are_seen(tmp_path: Path) -> None:
    layout = MemoryLayout([[5, 6], [5, 6, 7, 8, 9, 10]] * 8, width=8)
    args = arguments(
        tmp_path, max_steps=WARM_UP + STEPS, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    anatomy = dissect(LMTrainer(gpt2(), args, layout), STEPS)
    assert (anatomy.micro_batch, anatomy.accumulation) == (2, 2)
    assert anatomy.work.tokens == 16
    assert anatomy.padding == pytest.approx(1 - 16 / anatomy.positions)
    assert anatomy.positions in (16, 32), "packed, or padded to the layout's width"


def test_memory_is_told_apart(tmp_path: Path) -> None:
    model = gpt2()
    size = sum(p.numel() * 4 for p in model.parameters())
    anatomy = dissect(trainer_of(tmp_path, model), STEPS)
    memory = anatomy.memory
    assert memory["gradients"] == size
    assert memory["weights"] >= size
    assert 2 * size <= memory["optimizer"] < 2.2 * size + 1000  # AdamW keeps two numbers for each, and a count
    assert memory["peak"] >= memory["weights"] + memory["gradients"] + memory["optimizer"]
    assert memory["program"] > 50_000_000, "torch itself"


def test_everything_is_put_back(tmp_path: Path) -> None:
    model = bert()
    items = [{"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]}] * 8
    trainer = trainer_of(tmp_path, model, items, objective=Labelled(shifted=False))
    dissect(trainer, STEPS)
    for owner, name in ((trainer, "compute_loss"), (trainer, "get_batch_samples"), (trainer.accelerator, "backward")):
        assert name not in vars(owner)
    assert not model.bert._forward_hooks and not model.bert._forward_pre_hooks
