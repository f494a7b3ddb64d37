"""How many threads a process of the CPU computes with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of control groups v2: "200000 100000" is two CPUs, "max 100000" no limit


def choose_threads(current: int, environment: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """A number of threads, and why; ``current`` is torch's own, which is kept unless it is known to be wrong.

    torchrun gives every process one thread when nobody says otherwise, which leaves most of a CPU idle; and a
    container with a quota shows all of its host's CPUs, more threads than which may run only wait for each other.
    """
    usable = _usable_cpus()
    mine = max(1, usable // int(environment.get("LOCAL_WORLD_SIZE") or 1))
    if environment.get("OMP_NUM_THREADS") == "1" and "TORCHELASTIC_RUN_ID" in environment:
        return mine, f"{usable} CPUs shared by the processes of this machine"
    if "OMP_NUM_THREADS" in environment:
        return current, "OMP_NUM_THREADS"
    if current > mine:
        return mine, f"{usable} CPUs may be used"
    return current, "torch's own choice"


def _usable_cpus() -> int:
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        count = os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = _QUOTA.read_text().split()
        if quota != "max":
            count = min(count, max(1, round(int(quota) / int(period))))
    return count
