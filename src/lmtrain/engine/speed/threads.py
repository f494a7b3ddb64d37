"""How many threads a process of the CPU computes with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lmtrain.core.children import cores
from lmtrain.core.launching import processes_here


def choose_threads(current: int, environment: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """A number of threads, and why; ``current`` is torch's own, which is kept unless it is known to be wrong.

    torchrun gives every process one thread when nobody says otherwise, which leaves most of a CPU idle; and torch does
    not look at a container's quota.
    """
    usable = cores()
    mine = max(1, usable // processes_here(environment))
    asked = _asked(environment)
    if asked is None and "OMP_NUM_THREADS" in environment:
        return mine, f"{usable} CPUs shared by the processes of this machine"
    if asked is not None:
        return current, "OMP_NUM_THREADS"
    if current > mine:
        return mine, f"{usable} CPUs may be used"
    return current, "torch's own choice"


def threads_again(
    decided: Mapping[str, Any], current: int, environment: Mapping[str, str] = os.environ
) -> tuple[int, str | None]:
    """Those of the run that goes on, whose decisions are ``decided``, so that its bits repeat; and a line where they
    would be wrong here and others are taken: on another machine, or beside another number of processes.

    Without earlier decisions it is :func:`choose_threads`.
    """
    before = decided.get("threads")
    if not before:
        return choose_threads(current, environment)[0], None
    now, known = threads_for(environment), decided.get("threads_for")
    if known == now or (known is None and before <= max(1, now["cpus"] // now["processes"])):
        return int(before), None
    number, why = choose_threads(current, environment)
    if number == before:
        return number, None
    return number, (
        f"computes with {number} instead of {before} threads ({why}): this is not what the run began on, so the last "
        "bits of the results may differ"
    )


def threads_for(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What a number of threads was chosen for: CPUs that may be used, processes that share them, what was asked for."""
    return {
        "cpus": cores(),
        "processes": processes_here(environment),
        "OMP_NUM_THREADS": _asked(environment),
    }


def _asked(environment: Mapping[str, str]) -> str | None:
    """What the user asked for; not torchrun's own 1."""
    asked = environment.get("OMP_NUM_THREADS")
    return None if asked == "1" and "TORCHELASTIC_RUN_ID" in environment else asked
