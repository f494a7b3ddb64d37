"""Compiling the model's layers, where the time it saves is more than the time it takes."""

from __future__ import annotations

import logging
import shutil
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from lmtrain.core.clock import now
from lmtrain.core.errors import first_line
from lmtrain.engine.speed.fast_paths import FastPaths
from lmtrain.engine.speed.job import Compile, Job
from lmtrain.engine.speed.proof import prove_compiled
from lmtrain.models.layers import compile_layers, has_compiled_layers, leave_uncompiled, repeated_layers

_log = logging.getLogger(__name__)

_COMPILING = "compiling the model's layers, which takes some seconds, on a busy machine minutes"
_LEAST_S = {"cpu": 9.0}  # that compiling took on two cores (4 layers × 256): a run that cannot save that never tries
_LEAST_ELSEWHERE_S = 10.0
_MOST = 0.15  # the share of a pass that compiling is hoped to save; 0.11 was measured there
_FEW = 20  # passes of three seconds could save so much, and they would not be many
_WORTHWHILE = 1.03  # times as fast
_REPEATS = 3


@dataclass(frozen=True)
class Compiling:
    """Whether the layers are compiled, and why; ``seconds`` says what a pass took before and after, and compiling."""

    on: bool
    reason: str
    seconds: dict[str, float] | None = None

    def as_json(self) -> dict[str, Any]:
        return {"choice": "on" if self.on else "off", "reason": self.reason, "seconds": self.seconds}


def with_compiling(trainer: Job, paths: FastPaths, decided: Mapping[str, Any]) -> FastPaths:
    """``paths``, with the model's layers compiled where that was ``decided`` before, or is asked for and found to pay.

    ``paths`` have to be those of the trainer already: its passes are run. Where it was asked for and is not done, a
    line says why.
    """
    if "head" in decided:
        return _compiled_again(trainer, paths)
    decision = _decide(trainer, paths)
    if decision is None:
        return paths
    decisions = {**paths.decisions, "compile": decision.as_json()}
    lines = paths.lines
    if trainer.compiles == "on" and not decision.on:
        lines = (*lines, f"the layers are not compiled, although --compile on asks for it: {decision.reason}")
    return replace(paths, compiled=decision.on, decisions=decisions, lines=lines)


def _compiled_again(trainer: Job, paths: FastPaths) -> FastPaths:
    if paths.decisions.get("compile", {}).get("choice") != "on":
        return paths
    _log.info(_COMPILING)
    compile_layers(trainer.model)
    batch = trainer.first_batch()
    if batch is not None:  # makes the code, for the shape that was compiled before
        with trainer.leaving_no_trace():
            trainer.one_pass(batch)
    return replace(paths, compiled=True)


def _decide(trainer: Job, paths: FastPaths) -> Compiling | None:
    """None where there is nothing to decide: it is not asked for, or nothing is trained."""
    asked, args = trainer.compiles, trainer.args
    if asked == "off" or trainer.train_dataset is None:
        return None
    batch = None
    if args.world_size > 1:  # what one measures, and whether its proof succeeds, would have to be told to all
        cannot = f"there are {args.world_size} processes, and they would have to agree on it"
    elif args.torch_compile:
        cannot = "--torch_compile compiles the whole model"
    elif asked == "auto" and (paths.packing is not None or paths.by_length):
        cannot = "batches differ in shape, and each shape would be compiled"
    elif (batch := trainer.first_batch()) is None:
        cannot = "there is no labelled example to try it on beforehand"
    if batch is None:
        return Compiling(False, cannot)
    with trainer.leaving_no_trace():
        return choose_compiling(
            asked,
            trainer.model,
            lambda: trainer.one_pass(batch),
            lambda: prove_compiled(paths.scoring, trainer.model, batch, trainer.objective),
            trainer.planned_passes,
        )


def choose_compiling(
    asked: Compile,
    model: torch.nn.Module,
    once: Callable[[], None],
    prove: Callable[[], str | None],
    passes: int,
) -> Compiling:
    """Decide whether to compile ``model`` for ``passes`` forward and backward passes such as ``once`` makes.

    ``prove`` says how the compiled model differs from what it was, or None; that is a part of what compiling costs.

    Leaves the model compiled, and warm for that shape, when it says so. ``auto`` tries it only in a run that is long
    enough for it to pay, and keeps it only when the passes to come save more than compiling took.
    """
    device = next(model.parameters()).device
    if asked == "off" or (reason := _cannot(model, device.type)):
        return Compiling(False, "as asked" if asked == "off" else reason)
    if asked == "auto" and passes < _FEW:
        return Compiling(False, f"{passes} passes could not save what it takes")
    began = now(device)
    once()  # memory is fetched: at least as long as the next
    first = now(device) - began
    least = _LEAST_S.get(device.type, _LEAST_ELSEWHERE_S)
    if asked == "auto" and first * passes * _MOST < least:
        return Compiling(False, f"{first * passes:.0f} s of passes could not save the {least:.0f} s it takes")
    before = _seconds(once, device)
    began = now(device)
    _log.info(_COMPILING)
    compile_layers(model)
    try:
        once()
        difference = prove()
    except Exception as error:  # the compiler's own: of many kinds
        cause = getattr(error, "inner_exception", error)  # the other begins with the compiler's name alone
        difference = f"{type(cause).__name__}: {first_line(cause)}"
    if difference:
        leave_uncompiled(model)
        return Compiling(False, f"compiled layers give {difference}")
    cost = now(device) - began
    after = _seconds(once, device)
    seconds = {"before": before, "after": after, "compiling": cost}
    saved = (before - after) * passes
    told = f"a pass takes {after * 1e3:,.0f} ms instead of {before * 1e3:,.0f}; compiling took {cost:.0f} s"
    if asked == "auto" and (before < _WORTHWHILE * after or saved < cost):
        leave_uncompiled(model)
        return Compiling(False, told, seconds)
    return Compiling(True, told, seconds)


def _cannot(model: torch.nn.Module, device: str) -> str:
    if not repeated_layers(model):
        return "the model has no repeated layers"
    if has_compiled_layers(model):
        return "they are compiled already, by whoever made the model"
    if device == "cpu" and not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        return "there is no C++ compiler"
    return ""


def _seconds(once: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(_REPEATS):
        began = now(device)
        once()
        times.append(now(device) - began)
    return statistics.median(times)
