"""What happened in a run, in order: starts and ends, steps without an update, spikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmtrain.core.console import amount, counted
from lmtrain.report.facts import shown
from lmtrain.report.log import listed, number, whole
from lmtrain.report.reading import Run


@dataclass(frozen=True, slots=True)
class Happening:
    """``step`` None where it belongs to none; ``weight`` is "plain", "notable" or "bad"."""

    seconds: float
    step: int | None
    text: str
    weight: str = "plain"


def happenings(run: Run) -> list[Happening]:
    """What happened in a run, in order: starts, ends, steps without an update, spikes. Saves are told apart."""
    found = []
    for event in run.history.events:
        told = _told(event)
        if told is not None:
            step = event.get("step")
            found.append(Happening(event["seconds"], step if isinstance(step, int) else None, *told))
    columns = run.history.train
    for step, loss in run.history.spikes:
        at = np.searchsorted(columns["step"], step)
        found.append(Happening(float(columns["seconds"][at]), step, f"the loss spikes to {loss:.4g}", "notable"))
    return sorted(found, key=lambda happening: happening.seconds)


def _told(event: dict[str, Any]) -> tuple[str, str] | None:
    kind = event["event"]
    if kind in ("save", "trained"):
        return None
    if kind == "status":
        state, step, reason = event.get("state"), event.get("step"), event.get("reason")
        if state == "training" and isinstance(step, int) and step:
            return f"at step {step:,}", "plain"
        if state in ("failed", "interrupted"):
            return f"{state}: {reason}" if reason else str(state), "bad" if state == "failed" else "notable"
        return str(state), "plain"
    if kind == "begin":
        parameters = event.get("parameters")
        size = f", {amount(parameters)} parameters" if isinstance(parameters, int) else ""
        return f"{counted(whole(event.get('steps')), 'step')} planned{size}", "plain"
    if kind == "bad_step":
        examples = ", ".join(map(str, listed(event.get("examples"))))
        where = f" (examples {examples})" if examples else ""
        loss, gradient = number(event.get("loss")), number(event.get("grad_norm"))
        return f"no update: its loss is {loss:.4g}, the norm of its gradient {gradient:.4g}{where}", "bad"
    rest = {k: v for k, v in event.items() if k not in ("event", "time", "seconds", "step")}
    text = ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in rest.items())
    return (f"{kind.replace('_', ' ')}: {text}" if text else kind.replace("_", " "))[:400], "plain"
