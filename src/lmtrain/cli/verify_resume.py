"""``lmtrain verify-resume clm|mlm|sft``: a run that was killed and resumed beside one that was left alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lmtrain.cli.startup import heavy_imports
from lmtrain.config.options import AboutRun
from lmtrain.core.errors import ExitCode
from lmtrain.core.stopping import leaving_nothing

if TYPE_CHECKING:
    from lmtrain.rehearsal.verify_resume import Verdict


def run(asked: AboutRun) -> int:
    """Exit code 0 when the runs are equal to the bit, 1 when not."""
    with heavy_imports():
        from lmtrain.rehearsal.verify_resume import verify_resume

    with leaving_nothing():
        verdict = verify_resume(asked.run, asked.options.steps, asked.options.save_at)
    print(json.dumps(verdict.as_dict()) if asked.options.json else "\n".join(table(verdict)))
    return ExitCode.OK if verdict.is_equal else ExitCode.OUR_FAULT


def table(verdict: Verdict) -> list[str]:
    """A verdict as lines of text."""
    lines = [f"{'property':<20}{'compared':>20}  straight and resumed"]
    lines += [f"{row.what:<20}{row.extent:>20}  {row.difference or 'equal'}" for row in verdict.rows]
    where = f"killed after step {verdict.killed_after} of {verdict.steps}, resumed from step {verdict.resumed_from}"
    return [*lines, "", f"{where}: " + ("equal to the bit" if verdict.is_equal else "NOT the same run")]
