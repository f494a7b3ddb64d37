"""Compiled layers: taken where they pay, proven equal, and made again from the decision."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lmtrain.engine.speed import compiling
from lmtrain.engine.speed.compiling import choose_compiling, with_compiling
from lmtrain.engine.speed.fast_paths import settle
from lmtrain.engine.trainer import LMTrainer, settling
from lmtrain.models.layers import compile_layers, has_compiled_layers, repeated_layers
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, gpt2, llama, logged, rows

BLOCKS = rows(24, shortest=12, longest=12)


def trainer(folder: Path, *, model: Any = None, bf16: bool = False, **options: Any) -> LMTrainer:
    args = arguments(folder, max_steps=4, per_device_train_batch_size=4, bf16=bf16)
    data = MemoryLayout(BLOCKS), MemoryLayout(BLOCKS[:5])
    return LMTrainer(model or llama(), args, *data, objective=Causal(), **options)


def test_the_layers_are_found() -> None:
    assert [type(layer).__name__ for layer in repeated_layers(gpt2())] == ["GPT2Block"] * 2
    assert repeated_layers(nn.Linear(2, 2)) == []


class Pretended:
    """Passes of a given length, before and after compiling; nothing is compiled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: float, after: float, cost: float) -> None:
        self.model, self.compiled, self.after, self.before, self.cost = llama(), False, after, before, cost
        monkeypatch.setattr(compiling, "compile_layers", self._compile)
        monkeypatch.setattr(compiling, "leave_uncompiled", self._leave)
        monkeypatch.setattr(compiling, "_cannot", lambda model, device: "")
        monkeypatch.setattr(compiling, "now", self._clock)
        self.now = 0.0

    def _clock(self, device: torch.device) -> float:
        return self.now

    def _compile(self, model: nn.Module) -> None:
        self.compiled = True
        self.now += self.cost

    def _leave(self, model: nn.Module) -> None:
        self.compiled = False

    def decide(self, asked: Any, passes: int, difference: str | None = None) -> compiling.Compiling:
        return choose_compiling(asked, self.model, self._once, lambda: difference, passes)

    def _once(self) -> None:
        self.now += self.after if self.compiled else self.before


@pytest.mark.parametrize(
    ("asked", "before", "after", "passes", "on"),
    [
        ("auto", 1.0, 0.8, 1000, True),
        ("auto", 1.0, 0.8, 100, False),  # saves 20 s of the 30 it took
        ("auto", 1.0, 0.99, 100_000, False),  # too little to be sure of
        ("auto", 1.0, 0.5, 10, False),  # too short a run to try
        ("on", 1.0, 1.2, 10, True),
        ("off", 1.0, 0.1, 10**6, False),
    ],
)
def test_it_has_to_pay(
    monkeypatch: pytest.MonkeyPatch, asked: str, before: float, after: float, passes: int, on: bool
) -> None:
    pretended = Pretended(monkeypatch, before, after, cost=30.0)
    decision = pretended.decide(asked, passes)
    assert decision.on == on == pretended.compiled
    assert decision.as_json()["choice"] == ("on" if on else "off")


def test_another_result_is_no_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    pretended = Pretended(monkeypatch, 1.0, 0.1, cost=1.0)
    decision = pretended.decide("on", 1000, "a loss of 2 for 1")
    assert not decision.on and not pretended.compiled and "a loss of 2 for 1" in decision.reason


def test_without_a_compiler_it_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    decision = choose_compiling("on", llama(), lambda: None, lambda: None, 10)
    assert (decision.on, decision.reason) == (False, "there is no C++ compiler")


@pytest.mark.parametrize("asked", ["on", "auto"])
def test_what_was_asked_for_and_cannot_be_done_is_said(
    asked: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    run = trainer(tmp_path, compiles=asked)
    assert not run.fast_paths.compiled and run.fast_paths.decisions["compile"]["choice"] == "off"
    expected = ["the layers are not compiled, although --compile on asks for it: there is no C++ compiler"]
    assert list(run.fast_paths.lines) == (expected if asked == "on" else [])


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_what_the_compiler_fails_of_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Such as a library in its cache that a killed process left half written."""

    def fail(*args: Any, **options: Any) -> None:
        raise ImportError("main.so: file too short")

    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", fail)
    run = trainer(tmp_path, compiles="on")
    assert not run.fast_paths.compiled
    assert "ImportError: main.so: file too short" in run.fast_paths.lines[0]


def test_several_processes_say_that_they_do_not_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = trainer(tmp_path, compiles="on")
    paths = settle(run, {})
    monkeypatch.setattr(type(run.args), "world_size", 2)
    found = with_compiling(run, paths, {})
    assert not found.compiled and "there are 2 processes" in found.lines[-1]


def test_layers_that_another_trainer_compiled_are_as_they_were(tmp_path: Path) -> None:
    model = llama()
    compile_layers(model)
    args = arguments(tmp_path, max_steps=4, per_device_train_batch_size=4)
    second = LMTrainer(model, args, MemoryLayout(BLOCKS), objective=Causal())
    assert has_compiled_layers(model)
    assert not second.fast_paths.compiled and not has_compiled_layers(model)


def test_layers_that_whoever_made_the_model_compiled_stay_so(tmp_path: Path) -> None:
    model = llama()
    layer = model.model.layers[1]
    compile_layers(model)
    layer.compile()
    theirs = layer._compiled_call_impl
    compile_layers(model)
    run = trainer(tmp_path, model=model, compiles="on")
    assert not run.fast_paths.compiled and "compiled already" in run.fast_paths.lines[0]
    assert [layer._compiled_call_impl for layer in model.model.layers] == [None, theirs]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_training_runs_the_code_that_was_compiled(bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was tried in another way than training runs would be left uncompiled without a word."""
    torch._dynamo.reset()
    monkeypatch.setattr(settling, "no_more_compiling", lambda: torch.compiler.set_stance("fail_on_recompile"))
    run = trainer(tmp_path, compiles="on", bf16=bf16)
    assert run.fast_paths.compiled, run.fast_paths.decisions["compile"]
    run.train()
    assert run.state.global_step == 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_layers_train_as_the_others(tmp_path: Path) -> None:
    torch._dynamo.reset()
    plain = trainer(tmp_path)
    plain.train()
    compiled = trainer(tmp_path, compiles="on")
    assert compiled.fast_paths.compiled, compiled.fast_paths.decisions["compile"]
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    compiled.train()
    assert logged(compiled, "loss") == pytest.approx(logged(plain, "loss"), rel=1e-5)
    # An evaluation has another shape: it runs uncompiled rather than being compiled for.
    began = time.monotonic()
    assert compiled.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-5)
    again = trainer(tmp_path, decided=compiled.fast_paths.decisions)
    assert again.fast_paths.compiled and time.monotonic() - began < 300
