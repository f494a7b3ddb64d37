"""``lmtrain check clm|mlm``: the plan of a run, and all that stands in its way."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from lmtrain.cli.startup import heavy_imports
from lmtrain.config.options import AboutRun
from lmtrain.core.console import amount, counted, duration, is_first_process
from lmtrain.core.errors import ExitCode
from lmtrain.core.stopping import leaving_nothing

if TYPE_CHECKING:
    from lmtrain.rehearsal.plan import Plan
    from lmtrain.rehearsal.scale.outlook import Outlook

_STATES = {
    "new": "starts in {folder}",
    "unfinished": "goes on with the run in {folder}; what follows is for the whole of it",
    "finished": "is finished: the model lies in {folder}, and the command would only say so",
}


def run(asked: AboutRun) -> int:
    began = time.perf_counter()
    with heavy_imports():
        from lmtrain.engine.distributed.processes import leave_together
        from lmtrain.rehearsal.plan import make_plan

    with leaving_nothing():
        plan = make_plan(asked.run, asked.options if asked.options.asks else None, began=began)
    leave_together()
    if is_first_process():
        if asked.options.json:
            print(json.dumps(plan.as_dict()))
        else:
            shown = lines(plan, str(asked.run.output_dir))
            if plan.outlook is not None:
                shown += ["", *ahead(plan.outlook, plan)]
            print("\n".join(shown))
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


def ahead(found: Outlook, plan: Plan) -> list[str]:
    """The run on other machines, as lines of text."""
    save, together = found.save, found.mtbf
    one = f"{counted(found.devices, 'device')} in {counted(found.nodes, 'machine')}"
    rows = [
        ("devices", f"{one}: {counted(found.steps, 'step')} in {long(found.work)}"
                    + (f", in place of {plan.steps:,} here" if found.steps != plan.steps else "")),
        ("exchange", "; ".join(
            f"{name} waits {way.share:.1%} of a step of {way.step * 1e3:,.0f} ms (sends {amount(way.sent, 'B')})"
            for name, way in (("DDP", found.ddp), ("FSDP2", found.fsdp2)))),
    ]  # fmt: skip
    if (made := found.preparation) is not None:
        alone = f", {long(made.seconds)} where each takes its shard" if found.nodes > 1 else ""
        rows.append(("prepare", f"{amount(made.text, 'B')} of text to {amount(made.store, 'B')} of tokens once: "
                                f"{long(made.machine_seconds)} on one machine{alone}"))  # fmt: skip
    later = f", on disk {duration(save.write)} later" if save.write else ""
    rows += [
        ("save", f"{amount(save.size, 'B')} stop the steps for {duration(save.pause)}{later}; after a failure "
                 f"{duration(found.restart)} until the next step"),
        ("failures", f"{found.failures:.2g} expected: one in {long(together)} among all devices"),
        ("lost", _lost(found)),
        ("advice", _advice(found)),
    ]  # fmt: skip
    return [f"{name:<8} {text}" for name, text in rows]


def _lost(found: Outlook) -> str:
    played, lost = found.played, found.lost
    if played is None or lost is None:
        return (
            f"everything: with a failure in {long(found.mtbf)} and {long(found.restart)} to go on from one, the run "
            "does not get to its end; take fewer devices, or faster storage"
        )
    parts = (("saving", played.pauses), ("work made again", played.again), ("restarts", played.restarts))
    shares = ", ".join(f"{name} {seconds / played.wall:.2%}" for name, seconds in parts)
    return f"{played.lost:.2%} of the time, {long(lost)}: {shares}"


def _advice(found: Outlook) -> str:
    every = f"save every {counted(found.save_steps, 'step')} ({long(found.interval)}): --save_steps {found.save_steps}"
    return every + (", once, at the end: failures are rarer than that" if found.save_steps >= found.steps else "")


def long(seconds: float) -> str:
    """``50 ms``, ``3 min 10 s``, ``49.2 h``, ``12.5 days``."""
    if seconds < 0.1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 36_000:
        return duration(seconds)
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.1f} days"
