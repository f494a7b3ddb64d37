"""The micro-batch is a matter of memory and speed: what a step computes stays."""

from __future__ import annotations

import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import forked
from lmtrain.core.errors import UserError
from lmtrain.engine.speed import batch_size
from lmtrain.engine.speed.batch_size import (
    CHECKPOINTING,
    MicroBatch,
    _best,
    _Tried,
    choose_micro_batch,
    closest_to,
    sizes,
)
from lmtrain.engine.speed.memory import available, free_here, held, needed_by
from lmtrain.engine.trainer import LMTrainer
from tiny import MemoryLayout, arguments, gpt2, llama, rows, weights

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("examples", "expected"),
    [(1, [1]), (2, [1, 2]), (7, [1, 7]), (8, [1, 2, 4, 8]), (12, [1, 2, 3, 6, 12]), (32, [1, 2, 4, 8, 16, 32])],
)
def test_the_sizes_tried(examples: int, expected: list[int]) -> None:
    assert sizes(examples) == expected


@pytest.mark.parametrize("examples", range(1, 200))
def test_sizes_make_up_a_step_and_lie_apart(examples: int) -> None:
    found = sizes(examples)
    assert all(examples % size == 0 for size in found)
    assert {1, examples} <= set(found)
    assert all(later >= 1.4 * earlier for earlier, later in pairwise(found))


def test_tokens_become_examples() -> None:
    assert closest_to(4096, np.full(10, 256), 1) == 16
    assert closest_to(4096, np.full(10, 256), 2) == 8
    assert closest_to(1000, np.array([100, 300]), 1) == 5
    assert closest_to(10, np.full(10, 256), 1) == 1


def test_of_sizes_as_fast_the_smallest_on_a_cpu_and_the_largest_on_a_gpu() -> None:
    tried = [_Tried(n, n / speed, 0) for n, speed in ((1, 50), (2, 97), (4, 100), (8, 96), (16, 90))]
    assert _best(tried, largest=False).examples == 2
    assert _best(tried, largest=True).examples == 8


def trainer_of(folder: Path, **options: Any) -> LMTrainer:
    args = arguments(folder, **{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, **options})
    return LMTrainer(gpt2(dropout=0.1), args, MemoryLayout(rows(24)))


def test_trying_leaves_everything_as_it_was(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    trainer.model.eval()
    before, state = weights(trainer.model), torch.get_rng_state()
    chosen = choose_micro_batch(trainer, 8)
    assert chosen.examples * chosen.accumulation == 8
    assert not chosen.checkpointing
    assert [entry["examples"] for entry in chosen.measured] == [1, 2, 4, 8][: len(chosen.measured)]
    assert all(entry["examples_per_second"] > 0 for entry in chosen.measured)
    after = weights(trainer.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in trainer.model.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert not trainer.model.training
    assert MicroBatch(**json.loads(json.dumps(chosen.as_dict()))).arguments == chosen.arguments


def test_the_longest_examples_are_tried(tmp_path: Path) -> None:
    data = rows(24)
    layout = MemoryLayout(data)
    trainer = LMTrainer(llama(), arguments(tmp_path, per_device_train_batch_size=4), layout)
    _ = trainer.fast_paths
    layout.reads.clear()
    choose_micro_batch(trainer, 4)
    longest = sorted(range(24), key=lambda i: -len(data[i]))
    assert {len(data[i]) for i in layout.reads} == {len(data[i]) for i in longest[:4]}


def test_a_step_is_the_same_whatever_was_chosen(tmp_path: Path) -> None:
    """The choice as arguments: 3 steps of 8 examples and a ragged last one give the same weights."""
    ends = []
    for size in sizes(8):
        args = arguments(tmp_path, num_train_epochs=1, **MicroBatch(size, 8 // size, False, "").arguments)
        trainer = LMTrainer(llama(), args, MemoryLayout(rows(20)))
        trainer.train()
        assert trainer.state.global_step == 3
        ends.append(weights(trainer.model))
    for end in ends[1:]:
        for name, value in ends[0].items():
            torch.testing.assert_close(end[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("drops", "sizes_allowed"), [(False, {1, 2, 4, 8}), (True, {8})])
def test_dropping_short_batches_keeps_its_meaning(tmp_path: Path, drops: bool, sizes_allowed: set[int]) -> None:
    """Of 20 examples, batches of 8 leave out 4 and batches of 4 none."""
    args = arguments(tmp_path, per_device_train_batch_size=8, dataloader_drop_last=drops)
    trainer = LMTrainer(llama(), args, MemoryLayout(rows(20)))
    chosen = choose_micro_batch(trainer, 8)
    assert {entry["examples"] for entry in chosen.measured} <= sizes_allowed
    assert chosen.examples in sizes_allowed


def test_memory_limits_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the memory of some examples free, larger sizes are not even tried."""
    trainer = trainer_of(tmp_path)
    _ = trainer.fast_paths  # looks at a batch too
    tried: list[int] = []
    batch_of = trainer.batch_of
    monkeypatch.setattr(trainer, "batch_of", lambda numbers: tried.append(len(numbers)) or batch_of(numbers))
    need = needed_by(trainer.model)["optimizer"]
    monkeypatch.setattr(batch_size, "free_here", lambda device: math.ceil(1.5 * (need + 40_000_000)))
    monkeypatch.setattr(batch_size, "PeakMemory", _HeldByExamples(tried))
    chosen = choose_micro_batch(trainer, 8)
    assert chosen.examples == 1 and tried == [1], "two examples would take 80 MB of the 54 that may be taken"


class _HeldByExamples:
    """A memory of 40 MB for each example of the largest batch so far."""

    def __init__(self, tried: list[int]) -> None:
        self.tried, self.start = tried, 0

    def __call__(self, device: torch.device) -> _HeldByExamples:
        return self

    @property
    def bytes(self) -> int:
        return 40_000_000 * max(self.tried)


def computes_twice(trainer: LMTrainer) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in trainer.model.modules())


def test_activations_are_computed_twice_only_when_they_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(tmp_path)

    class Memory:
        start = 0

        def __init__(self, device: torch.device) -> None: ...

        @property
        def bytes(self) -> int:
            return 1_000 if computes_twice(trainer) else 10**12

    monkeypatch.setattr(batch_size, "PeakMemory", Memory)
    chosen = choose_micro_batch(trainer, 8)
    assert chosen.checkpointing and chosen.arguments[CHECKPOINTING] is True
    assert "computed twice" in chosen.reason
    assert not computes_twice(trainer), "put back"
    monkeypatch.setattr(trainer.args, CHECKPOINTING, True)
    assert choose_micro_batch(trainer, 8).checkpointing, "as asked"
    monkeypatch.setattr(batch_size, "free_here", lambda device: 0)
    with pytest.raises(UserError, match="not even 1 example at a time"):
        choose_micro_batch(trainer, 8)


PEAKS = """
import torch
from lmtrain.core.allocator import keep_freed_memory
from lmtrain.engine.speed.memory import PeakMemory
keep_freed_memory()  # as training does; what was freed before must not hide what is taken now
def touch():
    torch.empty(30_000_000).fill_(1.0)  # 120 MB
for _ in range(3):
    peak = PeakMemory(torch.device("cpu"))
    touch()
    print(peak.bytes - peak.start)
print(PeakMemory(torch.device("cpu")).bytes - peak.start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells no peak that can be reset")
def test_the_peak_is_that_of_the_stretch(tmp_path: Path) -> None:
    (tmp_path / "peaks.py").write_text(PEAKS)
    *stretches, nothing = (int(line) for line in forked.run([tmp_path / "peaks.py"]).stdout.split())
    assert all(110e6 < taken < 150e6 for taken in stretches)
    assert nothing < 20e6


def test_memory_is_told() -> None:
    assert held(CPU) > 50e6
    assert available(CPU) > 0


@pytest.mark.parametrize(
    ("own", "root", "limit", "used", "of_all"),
    [
        ("0::/job/step", "", "memory.max", "memory.current", ""),
        ("7:cpu,memory:/job/step\n0::/", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
)
def test_limits_around_a_process_count_and_pages_of_files_give_way(
    own: str, root: str, limit: str, used: str, of_all: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of control groups of both versions; a container sees its own as the root."""
    monkeypatch.setattr("lmtrain.engine.speed.memory._GROUPS", tmp_path)
    monkeypatch.setattr("lmtrain.engine.speed.memory._OWN_GROUPS", tmp_path / "own")
    free = available(CPU)
    job = tmp_path / root / "job"
    (job / "step").mkdir(parents=True)
    for place, most in ((tmp_path / root, "9000"), (job, "1000"), (job / "step", "max")):
        (place / limit).write_text(most)
        (place / used).write_text("900")
    assert available(CPU) == 8100, "the root's: where it lies further inside is not known"
    (tmp_path / "own").write_text(own)
    assert available(CPU) == 100
    (job / "memory.stat").write_text(f"anon 500\n{of_all}active_file 150\n{of_all}inactive_file 250\nunevictable 7\n")
    assert available(CPU) == 500
    (job / used).write_text("2000")
    assert available(CPU) == 0 < free


def test_processes_on_a_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmtrain.engine.speed.memory.available", lambda device: 1000)
    assert free_here(CPU) == 1000
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert free_here(CPU) == 125, "all of them may be here"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_here(CPU) == 250
    assert free_here(torch.device("cuda")) == 1000, "each has a GPU of its own"
