"""What the trainer counts and times, with a clock of the test's own and in runs of the real trainer."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from lmtrain.engine.meter import Meter, step_work
from lmtrain.engine.speed.machine import Peak
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.flops import ModelFlops, Work
from lmtrain.objectives import Causal, Labelled
from tiny import MemoryLayout, arguments, bert, llama, rows

CPU = torch.device("cpu")


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_evaluating_and_saving_is_not_training(tmp_path: Path) -> None:
    clock = FakeClock()
    time = Meter(clock=clock)
    event: Any = (arguments(tmp_path), TrainerState(), TrainerControl())
    time.on_train_begin(*event)
    clock.now += 4
    time.on_step_end(*event)
    assert time.seconds == 4
    clock.now += 50
    time.on_evaluate(*event)
    clock.now += 7
    time.on_save(*event)
    clock.now += 2
    assert time.seconds == 6


def test_speed_of_a_lap_and_of_the_whole(tmp_path: Path) -> None:
    clock, flops = FakeClock(), ModelFlops.of(llama(), causal=True)
    meter = Meter(flops, Peak(1e6, "fp32", "cpu", 1, 256), clock=clock)
    state = TrainerState()
    state.num_input_tokens_seen, state.total_flos = 10, 5.0  # of an earlier part of the run
    event: Any = (arguments(tmp_path), state, TrainerControl(should_log=True))
    meter.on_train_begin(*event)
    laps = []
    for tokens, seconds in ((8, 2.0), (4, 4.0)):
        meter.add(torch.tensor([tokens, tokens - 1, tokens**2]))
        for batch in meter.waiting(iter([tokens])):
            assert batch == tokens
        clock.now += seconds
        meter.on_step_end(*event)
        meter.read(state)
        laps.append(meter.lap(state))
    work = [Work(8, 7, 64), Work(4, 3, 16)]
    assert [lap["tokens_per_second"] for lap in laps] == [4, 1]
    for lap, done, seconds in zip(laps, work, (2, 4), strict=True):
        assert lap["tflops"] == pytest.approx(flops.step(done) / seconds / 1e12, rel=1e-3)
        assert lap["mfu"] == pytest.approx(flops.step(done) / seconds / 1e6, rel=1e-3)
        assert lap["waiting_for_data"] == 0
    clock.now += 100  # the last checkpoint, the best model loaded
    meter.on_train_end(*event)
    clock.now += 100
    whole = meter.whole(state)
    assert whole["train_tokens_per_second"] == 2
    assert whole["train_mfu"] == pytest.approx(flops.step(work[0] + work[1]) / 6 / 1e6, rel=1e-3)
    assert state.num_input_tokens_seen == 22


def test_waiting_is_counted_and_ends_with_the_batches() -> None:
    clock = FakeClock()
    meter = Meter(clock=clock)

    def slow() -> Any:
        for number in range(3):
            clock.now += 5
            yield number

    batches = meter.waiting(slow())
    for number, batch in enumerate(batches):
        assert batch == number
        clock.now += 15  # a step
    assert meter.lap(TrainerState())["waiting_for_data"] == 0.25
    assert list(meter.waiting(itertools.repeat(1, 2))) == [1, 1]


def test_the_work_of_a_batch() -> None:
    ids = torch.zeros(2, 4, dtype=torch.long)
    assert step_work({"input_ids": ids}, torch.tensor(6), CPU).tolist() == [8, 6, 32]
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert step_work({"input_ids": ids, "attention_mask": mask}, torch.tensor(2), CPU).tolist() == [4, 2, 10]
    packed = {
        "input_ids": ids,
        "segments": torch.tensor([[1, 1, 1, 2], [1, 1, 0, 0]]),
        "position_ids": torch.tensor([[0, 1, 2, 0], [0, 1, 0, 0]]),
    }
    assert step_work(packed, torch.tensor(3), CPU).tolist() == [6, 3, 9 + 1 + 4]


@pytest.mark.parametrize("batch", [{"per_device_train_batch_size": 6}, {"gradient_accumulation_steps": 3}])
def test_a_run_counts_its_operations_whatever_its_micro_batches(batch: dict[str, int], tmp_path: Path) -> None:
    data = rows(12)
    args = arguments(tmp_path, num_train_epochs=1, **{"per_device_train_batch_size": 2, **batch})
    trainer = LMTrainer(llama(), args, MemoryLayout(data), objective=Causal())
    result = trainer.train()
    work = Work(sum(map(len, data)), sum(len(row) - 1 for row in data), sum(len(row) ** 2 for row in data))
    assert result.metrics["total_flos"] == pytest.approx(ModelFlops.of(trainer.model, causal=True).step(work))
    assert trainer.state.num_input_tokens_seen == work.tokens
    whole = trainer.meter.whole(trainer.state)
    assert 0 < whole["train_mfu"] < 1
    assert whole["train_tflops"] * 1e12 / trainer.meter.peak.flops == pytest.approx(whole["train_mfu"], rel=1e-2)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all({"tokens_per_second", "tflops", "mfu", "waiting_for_data"} <= entry.keys() for entry in logged)


def test_masked_models_count_their_hidden_tokens_only(tmp_path: Path) -> None:
    data = rows(8)
    args = arguments(tmp_path, max_steps=1, per_device_train_batch_size=8)
    objective = Labelled(shifted=False)
    items: Any = [{"input_ids": row} for row in data]
    trainer = LMTrainer(bert(), args, items, objective=objective, data_collator=_first_is_hidden)
    trainer.train()
    work = Work(sum(map(len, data)), 8, sum(len(row) ** 2 for row in data))
    assert trainer.state.total_flos == pytest.approx(ModelFlops.of(trainer.model, causal=False).step(work))


def _first_is_hidden(items: list[Any]) -> dict[str, torch.Tensor]:
    length = max(len(item["input_ids"]) for item in items)
    ids, mask = torch.zeros(len(items), length, dtype=torch.long), torch.zeros(len(items), length, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, item in enumerate(items):
        ids[row, : len(item["input_ids"])] = torch.tensor(item["input_ids"])
        mask[row, : len(item["input_ids"])] = 1
        labels[row, 0] = ids[row, 0]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
