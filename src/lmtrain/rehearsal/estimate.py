"""What a run is going to take, from one pass of its model: time, and memory at the peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmtrain.core.console import amount, counted, duration
from lmtrain.core.errors import UserError
from lmtrain.engine.arguments import examples_of_a_step, planned_steps
from lmtrain.engine.rehearsing import Stage
from lmtrain.engine.speed.memory import free_here, held, needed_by
from lmtrain.engine.trainer import LMTrainer
from lmtrain.rehearsal.footprint import Disk, evaluations_of, optimizer_bytes, snapshot_bytes
from lmtrain.rehearsal.passes import Pass


@dataclass(frozen=True)
class Estimate:
    """``seconds`` of the run without what is done once, ``memory`` in bytes at the peak of a step, ``snapshot`` bytes
    that saving in the background takes beside it; ``memory_free``: what this process may hold."""

    steps: int
    seconds: float
    memory: int
    snapshot: int
    memory_free: int
    examples: int

    def line(self, disk: Disk | None) -> str:
        """``600 steps, about 3 min 10 s, 1.1 GB of memory, 84 MB of disk``."""
        parts = [counted(self.steps, "step"), f"about {duration(self.seconds)}"]
        parts.append(f"{amount(self.memory + self.snapshot, 'B')} of memory")
        if disk is not None:
            parts.append(f"{amount(disk.needed, 'B')} of disk")
        return ", ".join(parts)


def length_of(trainer: LMTrainer) -> tuple[int, float]:
    """(steps, epochs) of the run."""
    args, dataset = trainer.args, trainer.train_dataset
    examples = len(dataset)  # type: ignore[arg-type]
    steps = planned_steps(args, examples)
    return steps, steps * examples_of_a_step(args) / max(1, examples) if args.max_steps > 0 else args.num_train_epochs


def estimate(stage: Stage, passed: Pass) -> Estimate:
    """From the pass that was tried: its time goes with the tokens, its activations with the examples."""
    trainer, resolved = stage.trainer, stage.resolved
    steps, epochs = length_of(trainer)
    splits: Any = stage.parts.corpus.splits
    a_token = passed.seconds / passed.tokens
    args = trainer.args
    a_step = args.train_batch_size * args.gradient_accumulation_steps * float(splits["train"].lengths.mean())
    seconds = steps * a_step * a_token
    if "validation" in splits:
        tokens = float(splits["validation"].lengths.sum()) / args.world_size
        seconds += evaluations_of(resolved, steps, epochs) * tokens * a_token / 3
    needed = needed_by(trainer.model)
    optimizer = optimizer_bytes(resolved, trainer)
    growth = needed["gradients"] + optimizer + passed.activations * passed.of // passed.examples
    free = free_here(args.device)
    may_hold = held(args.device) + free  # what was freed and is kept counts as held
    snapshot = snapshot_bytes(trainer.model, optimizer, resolved, free) if args.device.type == "cpu" else 0
    return Estimate(steps, seconds, passed.held + growth, snapshot, may_hold, passed.of)


def require_memory(examples: int, needed: int, free: int) -> None:
    """Raise :class:`UserError` when a step on so many ``examples`` at once needs more bytes than are ``free``."""
    if needed > free:
        raise UserError(
            f"{counted(examples, 'example')} at once take {amount(needed, 'B')} of memory and {amount(free, 'B')} are "
            "free; --auto_batch finds a number that fits",
            flag="--per_device_train_batch_size",
        )
