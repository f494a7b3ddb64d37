"""How large a step is and how many there are, where that is left to measuring."""

from __future__ import annotations

import tempfile
from typing import Any

from lmtrain.config.options import Resolved
from lmtrain.core.console import Say, counted, duration
from lmtrain.engine.batch_size import MicroBatch, choose_micro_batch, examples_a_step
from lmtrain.engine.budget import StepClock, steps_within
from lmtrain.engine.making import make_trainer
from lmtrain.engine.parts import Parts
from lmtrain.models.quiet import quiet_libraries


def settle_micro_batch(resolved: Resolved, parts: Parts, decided: dict[str, Any], say: Say) -> MicroBatch | None:
    """How many examples go through the model at once, where that is left to measuring; as ``decided`` when it was."""
    tokens = resolved.run.batch_tokens
    if not (resolved.run.auto_batch or tokens):
        return None
    if before := decided.get("micro_batch"):
        return MicroBatch(**before)
    with tempfile.TemporaryDirectory() as nowhere:
        trainer = make_trainer(resolved, parts, decided=decided, output_dir=nowhere)
        args = trainer.args
        examples = args.per_device_train_batch_size * args.gradient_accumulation_steps
        if tokens:
            layout: Any = parts.corpus.splits["train"]
            examples = examples_a_step(tokens, layout.lengths, args.world_size)
        chosen = choose_micro_batch(trainer, examples)
    times = "once" if chosen.accumulation == 1 else f"{chosen.accumulation} times"
    say("batch", f"{counted(chosen.examples, 'example')} at once, {times} a step · {chosen.reason}")
    return chosen


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
            twin = make_trainer(resolved, parts, None, decided=decided, model=model, callbacks=[clock], **changes)
            decided.update(twin.fast_paths.decisions)
            twin.train()

    steps, seconds = steps_within(minutes * 60, parts.model, trial)
    say("plan", f"{steps:,} steps in {duration(minutes * 60)}, at {seconds * 1000:.0f} ms a step")
    return steps
