"""The plan of a run, before it begins: what it will do, and what time, memory and disk that takes.

Everything is opened as the run will open it, and a few real steps are measured; nothing is written but the token store
that the run will read.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import disk_usage
from typing import Any

from lmtrain.config.options import Resolved
from lmtrain.config.save import as_dict
from lmtrain.core.console import Say, amount, say
from lmtrain.core.errors import Problems, UserError
from lmtrain.engine.arguments import planned_steps
from lmtrain.engine.assembly import settle_micro_batch
from lmtrain.engine.memory import available
from lmtrain.engine.parts import Parts, assemble
from lmtrain.engine.run_folder import Found, inspect
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models import describe
from lmtrain.rehearsal.anatomy import WARM_UP, Anatomy, dissect
from lmtrain.rehearsal.trial import short_run

_MEASURED_STEPS = 4


@dataclass(frozen=True)
class Plan:
    """Counts as they are; ``seconds``, ``memory`` and ``disk`` (bytes) are estimates from measured steps.

    ``state`` is that of the output folder: new, unfinished or finished. ``tokens`` are those of all steps.
    ``evaluations`` counts those during training and the one after it. ``trained`` of ``parameters`` are trained.
    """

    state: str
    model: str
    parameters: int
    trained: int
    examples: int
    evaluation_examples: int
    epochs: float
    steps: int
    tokens: int
    micro_batch: int
    accumulation: int
    processes: int
    precision: str
    paths: dict[str, Any]
    step_seconds: float
    tokens_per_second: float
    mfu: float
    evaluations: int
    seconds: float
    memory: int
    memory_free: int
    checkpoints: int
    disk: int
    disk_free: int
    lines: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_plan(resolved: Resolved, *, say: Say = say) -> Plan:
    """Open everything that the run needs and measure. Raises :class:`UserError` with all that stands in its way."""
    if not resolved.do_train or resolved.output_dir is None:
        raise UserError("nothing to train on; name a text: --train_file TEXT", flag="--train_file")
    folder = Path(resolved.output_dir).expanduser()
    problems, found, parts = Problems(), Found("new"), None
    with problems.collect():
        found = inspect(folder, resolved.command, as_dict(resolved), overwrite=resolved.run.overwrite_output_dir)
    with problems.collect():
        parts = assemble(resolved, say=say)
    problems.raise_if_any()
    assert parts is not None
    plan = _measured(resolved, parts, found, folder, say)
    for text, flag in _shortages(plan):
        problems.add(text, flag=flag)
    problems.raise_if_any()
    return plan


def times(strategy: str, every: float | None, steps: int, epochs: float) -> int:
    """How often something happens in ``steps`` steps that happens every so many of them (below 1: a share) and at
    the end."""
    if strategy == "epoch":
        return math.ceil(epochs)
    if strategy == "steps" and every:
        return math.ceil(steps / (math.ceil(every * steps) if every < 1 else every))
    return 0


def _measured(resolved: Resolved, parts: Parts, found: Found, folder: Path, say: Say) -> Plan:
    free = available(parts.device)
    chosen = settle_micro_batch(resolved, parts, {}, say)
    with short_run(resolved, parts, WARM_UP + _MEASURED_STEPS, **(chosen.arguments if chosen else {})) as trainer:
        steps = planned_steps(trainer.args, len(parts.corpus.splits["train"]))
        anatomy = dissect(trainer, _MEASURED_STEPS)
        return _written_down(resolved, parts, found, folder, trainer, anatomy, steps, free)


def _written_down(
    resolved: Resolved, parts: Parts, found: Found, folder: Path, trainer: LMTrainer, anatomy: Anatomy, steps: int,
    free: int,
) -> Plan:  # fmt: skip
    train, validation = (parts.corpus.splits.get(name) for name in ("train", "validation"))
    examples = len(train) if train is not None else 0
    a_step = anatomy.micro_batch * anatomy.accumulation * trainer.args.world_size
    limited = resolved.training.get("max_steps", -1) > 0
    epochs = steps * a_step / max(1, examples) if limited else trainer.args.num_train_epochs
    evaluations = _evaluations(resolved, steps, epochs)
    memory, model = anatomy.memory, trainer.model
    checkpoints = _checkpoints(resolved, steps, epochs)
    checkpoint = memory["weights"] + (0 if resolved.training.get("save_only_model") else memory["optimizer"])
    seconds = steps * anatomy.step_seconds + evaluations * _evaluation_seconds(anatomy, validation)
    mean = float(train.lengths.mean()) if train is not None else 0.0
    return Plan(
        state=found.state,
        model=describe(model),
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        examples=examples,
        evaluation_examples=len(validation) if validation is not None else 0,
        epochs=round(epochs, 3),
        steps=steps,
        tokens=round(epochs * examples * mean),
        micro_batch=anatomy.micro_batch,
        accumulation=anatomy.accumulation,
        processes=trainer.args.world_size,
        precision=f"{parts.precision.name} ({parts.precision.reason})",
        paths=trainer.fast_paths.decisions,
        step_seconds=anatomy.step_seconds,
        tokens_per_second=anatomy.tokens_per_second,
        mfu=anatomy.mfu,
        evaluations=evaluations,
        seconds=seconds,
        memory=memory["peak"],
        memory_free=free + memory["program"],
        checkpoints=checkpoints,
        disk=checkpoints * checkpoint + memory["weights"],
        disk_free=disk_usage(_existing(folder)).free,
        lines=tuple(trainer.fast_paths.lines),
    )


def _evaluations(resolved: Resolved, steps: int, epochs: float) -> int:
    given = resolved.training
    every = given.get("eval_steps") or given.get("logging_steps", 10)
    during = times(given.get("eval_strategy", "no"), every, steps, epochs)
    return during + int(resolved.do_eval)


def _checkpoints(resolved: Resolved, steps: int, epochs: float) -> int:
    """The most that lie there at once: the oldest goes when the next is written."""
    given = resolved.training
    strategy = given.get("save_strategy", "steps")
    made = 2 if strategy == "best" else times(strategy, given.get("save_steps", 500), steps, epochs)
    limit = given.get("save_total_limit")
    return made if limit is None else min(made, limit + 1)


def _evaluation_seconds(anatomy: Anatomy, layout: Any) -> float:
    """A forward pass over all its tokens: the body's, and a third of what head and loss take with their gradients."""
    if layout is None or not anatomy.work.tokens:
        return 0.0
    a_token = (anatomy.seconds["forward"] + anatomy.seconds["head"] / 3) / anatomy.work.tokens
    return a_token * float(layout.lengths.sum())


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _shortages(plan: Plan) -> list[tuple[str, str]]:
    found = []
    if plan.memory > plan.memory_free:
        found.append(
            (
                f"{plan.micro_batch} examples at once take {amount(plan.memory, 'B')} of memory and "
                f"{amount(plan.memory_free, 'B')} are free; --auto_batch finds a number that fits",
                "--per_device_train_batch_size",
            )
        )
    if plan.disk > plan.disk_free:
        found.append(
            (
                f"{plan.checkpoints} checkpoints and the model take {amount(plan.disk, 'B')}, and "
                f"{amount(plan.disk_free, 'B')} are free there; --save_total_limit 1 keeps fewer, or name another disk",
                "--output_dir",
            )
        )
    return found
