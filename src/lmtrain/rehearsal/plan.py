"""The plan of a run, before it begins: what it will do, and what time, memory and disk that takes.

Everything is opened as the run will open it, the rehearsal before every run is held, and a few real steps are measured;
nothing stays but the token store that the run will read.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lmtrain.config.commands.outlook import OutlookOptions
from lmtrain.config.options import Resolved
from lmtrain.config.save import as_dict
from lmtrain.config.values import user_path
from lmtrain.core.console import Say, say
from lmtrain.core.errors import Problems, UserError
from lmtrain.engine.agreement import require_same_start
from lmtrain.engine.arguments import require_a_step, training_arguments
from lmtrain.engine.distributed.meeting import telling_others
from lmtrain.engine.parts import Parts, assemble
from lmtrain.engine.rehearsing import Stage
from lmtrain.engine.runs.found import Found
from lmtrain.engine.runs.resume import goes_on_with_it, require_same_data, where_to_begin
from lmtrain.engine.sizing import settle_micro_batch
from lmtrain.engine.speed.memory import free_here
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models import describe
from lmtrain.models.sharding import count_of
from lmtrain.rehearsal.anatomy import WARM_UP, Anatomy, dissect
from lmtrain.rehearsal.estimate import length_of, require_memory
from lmtrain.rehearsal.footprint import disk_of, evaluations_of, snapshot_bytes
from lmtrain.rehearsal.other_machines import Measured, on_other_machines
from lmtrain.rehearsal.place import scratch_in, write_speed
from lmtrain.rehearsal.rehearse import rehearse
from lmtrain.rehearsal.scale.outlook import Outlook
from lmtrain.rehearsal.trial import short_run

_MEASURED_STEPS = 4


@dataclass(frozen=True)
class Plan:
    """Counts as they are; ``seconds``, ``memory`` and ``disk`` (bytes) are estimates from measured steps.

    ``state`` is that of the output folder: new, unfinished or finished. ``tokens`` are those of all steps.
    ``evaluations`` counts those during training and the one after it. ``trained`` of ``parameters`` are trained.
    ``seconds`` is the whole training with its evaluations, ``finishing_seconds`` of it the last checkpoint and the
    model. ``memory`` is the peak, ``snapshot`` of it (a GPU's: beside it, in main memory) the copy that is saved while
    training goes on. ``disk`` is what lies there at the fullest moment, with ``checkpoints`` of them; ``disk_after``
    what stays: ``kept`` checkpoints, ``kept_whole`` of them with optimizer state (``checkpoint_bytes`` each, else
    ``weights_bytes``), with ``keeps_best`` the best among them, and the model. ``outlook``: the run on other machines,
    where that was asked.
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
    finishing_seconds: float
    memory: int
    snapshot: int
    memory_free: int
    checkpoints: int
    checkpoint_bytes: int
    weights_bytes: int
    export_bytes: int
    kept: int
    kept_whole: int
    keeps_best: bool
    disk: int
    disk_after: int
    disk_free: int
    lines: tuple[str, ...] = ()
    outlook: Outlook | None = None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "outlook": self.outlook.as_dict() if self.outlook else None}


@telling_others()
def make_plan(
    resolved: Resolved, ahead: OutlookOptions | None = None, *, began: float | None = None, say: Say = say
) -> Plan:
    """Open everything that the run needs, rehearse and measure it.

    ``ahead`` asks how it would go on other machines; ``began`` is when the program did (``time.perf_counter``), whose
    start each failure repeats there. Raises :class:`UserError` with all that stands in its way.
    """
    began = time.perf_counter() if began is None else began
    if not resolved.do_train or resolved.output_dir is None:
        raise UserError("nothing to train on; name a text: --train_file TEXT", flag="--train_file")
    require_same_start(resolved)
    folder = user_path(resolved.output_dir)
    problems, found, parts, usable, has_steps = Problems(), Found("new"), None, False, False
    options = as_dict(resolved)
    with problems.collect():
        found = where_to_begin(folder, resolved.command, options)
        usable = True
    for line in found.lines:
        say("run", line)
    with problems.collect():
        parts = assemble(resolved, say=say)
    if parts is None:
        problems.raise_if_any()
    assert parts is not None
    with problems.collect():
        if goes_on_with_it(found) and not resolved.run.accept_changes:
            require_same_data(folder, parts.corpus.manifest(), options)
    with problems.collect():
        require_a_step(training_arguments(resolved, parts.precision), len(parts.corpus.splits["train"]))
        has_steps = True
    if not has_steps:
        problems.raise_if_any()
    with tempfile.TemporaryDirectory() as elsewhere:
        place = folder if usable else Path(elsewhere)  # the rest is tried all the same
        plan = None
        with problems.collect():
            plan = _measured(resolved, parts, found, place, ahead, time.perf_counter() - began, say)
    problems.raise_if_any()
    assert plan is not None
    return plan


def _measured(
    resolved: Resolved, parts: Parts, found: Found, folder: Path, ahead: OutlookOptions | None, start: float, say: Say
) -> Plan:
    free = free_here(parts.device)
    chosen = settle_micro_batch(resolved, parts, {}, say)
    with short_run(resolved, parts, WARM_UP + _MEASURED_STEPS, **(chosen.arguments if chosen else {})) as trainer:
        if not resolved.run.skip_check:
            rehearse(Stage(resolved, parts, folder, Found("new"), lambda: trainer, say), plan=False)
        steps, epochs = length_of(trainer)
        with scratch_in(folder) as scratch:
            speed = write_speed(scratch)
        anatomy = dissect(trainer, _MEASURED_STEPS)
        plan = _written_down(resolved, parts, found, folder, trainer, anatomy, (steps, epochs), (free, speed))
        require_memory(anatomy.micro_batch, anatomy.memory["peak"], plan.memory_free)  # the copy: where there is room
        if ahead is not None:
            measured = Measured(anatomy, steps, plan.checkpoint_bytes, speed, plan.snapshot > 0, start)
            plan = replace(plan, outlook=on_other_machines(ahead, resolved, parts, trainer, measured))
        return plan


def _written_down(
    resolved: Resolved, parts: Parts, found: Found, folder: Path, trainer: LMTrainer, anatomy: Anatomy,
    length: tuple[int, float], measured: tuple[int, float],
) -> Plan:  # fmt: skip
    train, validation = parts.corpus.splits["train"], parts.corpus.splits.get("validation")
    examples = len(train)
    (steps, epochs), (free, speed) = length, measured
    evaluations = evaluations_of(resolved, steps, epochs)
    memory, model = anatomy.memory, trainer.model
    disk = disk_of(resolved, model, folder, steps, epochs, optimizer=memory["optimizer"])
    snapshot = snapshot_bytes(model, memory["optimizer"], resolved, free)
    here = snapshot if trainer.args.device.type == "cpu" else 0
    finishing = ((disk.checkpoint if disk.made else 0) + disk.export) / speed
    seconds = steps * anatomy.step_seconds + evaluations * _evaluation_seconds(anatomy, validation) + finishing
    return Plan(
        state="new" if _begins(found, folder) else found.state,
        model=describe(model),
        parameters=count_of(model),
        trained=count_of(model, trained=True),
        examples=examples,
        evaluation_examples=len(validation) if validation is not None else 0,
        epochs=round(epochs, 3),
        steps=steps,
        tokens=round(epochs * examples * float(train.lengths.mean())),
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
        finishing_seconds=finishing,
        memory=memory["peak"] + here,
        snapshot=snapshot,
        memory_free=free + memory["program"],
        checkpoints=disk.most,
        checkpoint_bytes=disk.checkpoint,
        weights_bytes=disk.weights,
        export_bytes=disk.export,
        kept=disk.kept,
        kept_whole=disk.whole,
        keeps_best=disk.best,
        disk=disk.needed,
        disk_after=disk.stays,
        disk_free=disk.free,
        lines=tuple(trainer.fast_paths.lines),
    )


def _begins(found: Found, folder: Path) -> bool:
    """Whether a run begins in ``folder``, be it at another one's checkpoint."""
    named = found.checkpoint
    return found.overwrites or (named is not None and named.resolve().parent != folder.resolve())


def _evaluation_seconds(anatomy: Anatomy, layout: Any) -> float:
    """A forward pass over all its tokens, which the processes share: the body's, and a third of what head and loss take
    with their gradients."""
    if layout is None or not anatomy.work.tokens:
        return 0.0
    a_token = (anatomy.seconds["forward"] + anatomy.seconds["head"] / 3) / anatomy.work.tokens
    return a_token * float(layout.lengths.sum()) / anatomy.processes
