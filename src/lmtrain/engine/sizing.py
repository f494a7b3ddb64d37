"""How large a step is and how many there are, where that is left to measuring."""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from typing import Any

from lmtrain.config.global_batch import divide, division_of, examples_a_step, largest_division
from lmtrain.config.options import Resolved
from lmtrain.config.save import as_dict
from lmtrain.core.console import Say, counted, duration
from lmtrain.core.launching import processes
from lmtrain.engine.making import make_trainer
from lmtrain.engine.parts import Parts
from lmtrain.engine.progress import Progress
from lmtrain.engine.speed.batch_size import MicroBatch, choose_micro_batch, closest_to
from lmtrain.engine.speed.budget import StepClock, steps_within
from lmtrain.models.quiet import quiet_libraries


def settle_micro_batch(resolved: Resolved, parts: Parts, decided: dict[str, Any], say: Say) -> MicroBatch | None:
    """How many examples go through the model at once, where that is left to measuring; as ``decided`` when it was."""
    tokens = resolved.run.batch_tokens
    if not (resolved.run.auto_batch or tokens):
        if division := division_of(resolved):
            shown = _shown(division.micro_batch, division.accumulation)
            say("batch", f"{resolved.run.global_batch_size:,} examples a step: {shown}{_among()}")
        return None
    if before := decided.get("micro_batch"):
        whole = examples_a_step(as_dict(resolved), processes()) or decided.get("examples_a_step")
        return _again(MicroBatch(**before), whole)
    # Nothing is compiled for a size that may not even fit, nor anew for each size that is tried.
    uncompiled = replace(resolved, run=replace(resolved.run, compile="off"))
    known = {name: decision for name, decision in decided.items() if name != "compile"}
    with tempfile.TemporaryDirectory() as nowhere:
        trainer = make_trainer(uncompiled, parts, decided=known, output_dir=nowhere)
        args = trainer.args
        examples = args.per_device_train_batch_size * args.gradient_accumulation_steps
        if tokens:
            layout: Any = parts.corpus.splits["train"]
            examples = closest_to(tokens, layout.lengths, args.world_size)
        chosen = choose_micro_batch(trainer, examples)
    say("batch", f"{_shown(chosen.examples, chosen.accumulation)} a step{_among()} · {chosen.reason}")
    return chosen


def _again(before: MicroBatch, whole: int | None) -> MicroBatch:
    """What was measured when the run began, also where a step of ``whole`` examples is now shared by other numbers of
    processes: then as many at once as before, or the next fewer."""
    if whole is None:  # a run of a time when that was not written down
        return before
    divide(whole, processes())  # or say that they cannot share it
    division = largest_division(whole // processes(), before.examples)
    return replace(before, examples=division.micro_batch, accumulation=division.accumulation)


def _shown(at_once: int, times: int) -> str:
    return f"{counted(at_once, 'example')} at once, {'once' if times == 1 else f'{times} times'}"


def _among() -> str:
    return f" in each of {processes()} processes" if processes() > 1 else ""


def steps_in(
    resolved: Resolved,
    parts: Parts,
    minutes: float,
    decided: dict[str, Any],
    say: Say,
) -> int:
    """Steps that fit into ``minutes``, measured with a twin of the model that is thrown away.

    What the twin chooses to be fast is added to ``decided``, so that the run does what was measured.
    """

    def trial(model: Any, clock: StepClock, steps: int) -> None:
        changes: dict[str, Any] = {
            "max_steps": steps,
            "eval_strategy": "no",
            "save_strategy": "no",
            "push_to_hub": False,
        }
        with quiet_libraries():
            unseen = [Progress(stream=io.StringIO()), clock]
            twin = make_trainer(resolved, parts, None, decided=decided, model=model, callbacks=unseen, **changes)
            decided.update(twin.fast_paths.decisions)
            twin.train()

    steps, seconds = steps_within(minutes * 60, parts.model, trial)
    say("plan", f"{counted(steps, 'step')} in {duration(minutes * 60)}, at {seconds * 1000:.0f} ms a step")
    return steps
