"""Advice follows from figures: each line appears when its figure says so, and only then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lmtrain.engine.speed.batch_size import CHECKPOINTING
from lmtrain.engine.speed.machine import Peak
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.flops import Work
from lmtrain.rehearsal import advice as module
from lmtrain.rehearsal.advice import advice
from lmtrain.rehearsal.anatomy import PARTS, Anatomy
from tiny import MemoryLayout, arguments, gpt2, rows

PEAK = Peak(1e11, "fp32", "cpu", 1, 1024)
SECONDS = {"data": 0.01, "forward": 0.3, "head": 0.1, "backward": 0.5, "optimizer": 0.05, "other": 0.04}
GOOD = Anatomy(
    SECONDS, dict.fromkeys(PARTS, 0.0), Work(1000, 990, 100_000), 1000, 8, 1, "fp32", PEAK, {"peak": 1}, 4
)  # fmt: skip


@pytest.fixture(autouse=True)
def with_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lacks_compiler", lambda: False)


@pytest.fixture
def trainer(tmp_path: Path) -> LMTrainer:
    return LMTrainer(gpt2(), arguments(tmp_path), MemoryLayout(rows(8)))


def with_time(part: str, seconds: float) -> Anatomy:
    return replace(GOOD, seconds={**SECONDS, part: seconds})


def test_a_good_step_needs_none(trainer: LMTrainer) -> None:
    assert advice(GOOD, trainer) == []
    assert advice(GOOD, trainer, GOOD) == [], "attention dropout that costs nothing may stay"


@pytest.mark.parametrize(
    ("anatomy", "said"),
    [
        (with_time("data", 0.11), "10% of the time waits for data; --dataloader_num_workers 2"),
        (with_time("head", 0.9), "50% of the time goes into the head of 67 ids"),
        (with_time("optimizer", 0.95), "50% of the time goes into the update"),
        (replace(GOOD, positions=2000), "50% of the positions are padding"),
        (replace(GOOD, precision="bf16"), "products run in bf16; --precision fp32"),
    ],
)
def test_what_costs_is_named(anatomy: Anatomy, said: str, trainer: LMTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmtrain.engine.speed.precision import Decision

    monkeypatch.setattr(module, "choose_precision", lambda *_: Decision("fp32", "it is faster here"))
    (line,) = advice(anatomy, trainer)
    assert line.startswith(said)


def test_a_missing_compiler_is_named_where_it_would_help(trainer: LMTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lacks_compiler", lambda: True)
    (line,) = advice(GOOD, trainer)
    assert line.startswith("there is no C compiler (cc)")
    assert advice(replace(GOOD, peak=replace(PEAK, device="cuda")), trainer) == []


def test_attention_dropout_is_weighed(trainer: LMTrainer) -> None:
    (line,) = advice(GOOD, trainer, with_time("forward", 0.1))
    assert "20% shorter (measured)" in line


def test_computing_twice_is_named(trainer: LMTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.args, CHECKPOINTING, True)
    (line,) = advice(GOOD, trainer)
    assert f"--{CHECKPOINTING}" in line
