"""``lmtrain profile clm|mlm``: where a step's time and memory go, and what would help."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lmtrain.cli.startup import heavy_imports
from lmtrain.config.options import AboutRun
from lmtrain.core.console import amount, counted, is_first_process
from lmtrain.core.errors import ExitCode

if TYPE_CHECKING:
    from lmtrain.rehearsal.anatomy import Anatomy

_NAMES = {
    "data": "data", "forward": "body, forward", "head": "head and loss", "backward": "body, backward",
    "optimizer": "update", "other": "other",
}  # fmt: skip
_MEMORY = {
    "weights": "weights", "gradients": "gradients", "optimizer": "optimizer",
    "step": "activations and the rest", "program": "program and data",
}  # fmt: skip


def run(asked: AboutRun) -> int:
    with heavy_imports():
        from lmtrain.engine.distributed.processes import leave_together
        from lmtrain.rehearsal.profile import profile

    anatomy, advice = profile(asked.run, asked.options.steps)
    leave_together()
    if is_first_process():
        if asked.options.json:
            print(json.dumps({**anatomy.as_dict(), "advice": advice}))
        else:
            print("\n".join(table(anatomy)))
            if advice:
                print("\nWhat would help\n" + "\n".join(f"  {line}" for line in advice))
    return ExitCode.OK


def table(anatomy: Anatomy) -> list[str]:
    """An anatomy as lines of text."""
    seconds, work, peak = anatomy.step_seconds, anatomy.work, anatomy.peak
    accumulated = f", accumulated {anatomy.accumulation} times" if anatomy.accumulation > 1 else ""
    shared = f" in each of {anatomy.processes} processes" if anatomy.processes > 1 else ""
    threads = f", {counted(peak.threads, 'thread')}" if peak.threads else ""
    lines = [
        f"{seconds * 1e3:,.1f} ms a step (mean of the middle half of {counted(anatomy.steps, 'step')}) · "
        f"{anatomy.tokens_per_second:,.0f} tokens/s",
        f"{counted(anatomy.micro_batch, 'example')} a micro-batch{accumulated}{shared} · "
        f"{counted(work.tokens, 'token')}, {work.predicted:,} predicted · {anatomy.padding:.1%} padding",
        f"{sum(anatomy.flops.values()) / seconds / 1e9:,.1f} GFLOP/s of {peak.flops / 1e9:,.1f} measured "
        f"({peak.precision}{threads}): MFU {anatomy.mfu:.1%}",
        "",
        f"{'part':<16}{'ms':>10}{'share':>9}{'GFLOP/s':>11}{'MFU':>8}",
    ]
    for part, taken in anatomy.seconds.items():
        row = f"{_NAMES[part]:<16}{taken * 1e3:>10,.1f}{taken / seconds:>9.1%}"
        if anatomy.flops[part] and taken:
            rate = anatomy.flops[part] / taken
            row += f"{rate / 1e9:>11,.1f}{rate / peak.flops:>8.1%}"
        lines.append(row)
    lines += ["", f"{'memory':<26}{amount(anatomy.memory['peak'], 'B'):>12} at the peak"]
    lines += [f"{name:<26}{amount(anatomy.memory[key], 'B'):>12}" for key, name in _MEMORY.items()]
    return lines
