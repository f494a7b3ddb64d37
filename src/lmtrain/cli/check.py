"""``lmtrain check clm|mlm``: the plan of a run, and all that stands in its way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lmtrain.config.options import AboutRun
from lmtrain.core.console import amount, counted, duration, is_first_process
from lmtrain.core.errors import ExitCode
from lmtrain.core.startup import heavy_imports

if TYPE_CHECKING:
    from lmtrain.rehearsal.plan import Plan

_STATES = {
    "new": "starts in {folder}",
    "unfinished": "goes on with the run in {folder}; what follows is for the whole of it",
    "finished": "is finished: the model lies in {folder}, and the command would only say so",
}


def run(asked: AboutRun) -> int:
    with heavy_imports():
        from lmtrain.engine.processes import leave_together
        from lmtrain.models.quiet import quiet_for_commands
        from lmtrain.rehearsal.plan import make_plan

    quiet_for_commands()
    plan = make_plan(asked.run)
    leave_together()
    if is_first_process():
        print(json.dumps(plan.as_dict()) if asked.options.json else "\n".join(lines(plan, str(asked.run.output_dir))))
    return ExitCode.OK


def lines(plan: Plan, folder: str) -> list[str]:
    """A plan as lines of text."""
    frozen = f", {amount(plan.trained)} of them trained" if plan.trained < plan.parameters else ""
    a_step = plan.micro_batch * plan.accumulation * plan.processes
    batch = f"{counted(plan.micro_batch, 'example')} at once"
    if plan.accumulation > 1:
        batch += f", {plan.accumulation} times"
    if plan.processes > 1:
        batch += f", in {plan.processes} processes"
    evaluations = f", {counted(plan.evaluations, 'evaluation')} included" if plan.evaluations else ""
    snapshot = f", {amount(plan.snapshot, 'B')} of it to save from while training goes on" if plan.snapshot else ""
    rows = [
        ("run", _STATES[plan.state].format(folder=folder)),
        ("model", f"{plan.model}{frozen} · {plan.precision}"),
        ("data", f"{counted(plan.examples, 'example')} to train on, {plan.evaluation_examples:,} to evaluate on"),
        ("steps", f"{counted(plan.steps, 'step')} of {counted(a_step, 'example')}: {plan.epochs:g} epochs, "
                  f"{amount(plan.tokens)} tokens"),
        ("batch", batch),
        *(("path", line) for line in plan.lines),
        ("time", f"about {duration(plan.seconds)}: {plan.step_seconds * 1e3:,.0f} ms a step, "
                 f"{plan.tokens_per_second:,.0f} tokens/s, MFU {plan.mfu:.0%}{evaluations}; "
                 f"{duration(plan.finishing_seconds)} to write the end"),
        ("memory", f"{amount(plan.memory, 'B')} at the peak{snapshot}, {amount(plan.memory_free, 'B')} free"),
        ("disk", f"{amount(plan.disk, 'B')} for {counted(plan.checkpoints, 'checkpoint')} and the model, "
                 f"{amount(plan.disk_free, 'B')} free"),
        ("keeps", kept(plan)),
    ]  # fmt: skip
    return [f"{name:<8} {text}" for name, text in rows]


def kept(plan: Plan) -> str:
    """What lies there when the run has ended."""
    parts = [f"the model ({amount(plan.export_bytes, 'B')})"]
    if plan.kept_whole:
        parts.append(
            f"{counted(plan.kept_whole, 'checkpoint')} to go on from ({amount(plan.checkpoint_bytes, 'B')} each)"
        )
    if lighter := plan.kept - plan.kept_whole:
        parts.append(f"{lighter} with weights only ({amount(plan.weights_bytes, 'B')} each)")
    best = ", the best among them" if plan.keeps_best else ""
    return f"{', '.join(parts)}{best}: {amount(plan.disk_after, 'B')}"
