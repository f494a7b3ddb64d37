"""Processes that work for another one: how many there may be, and what one does first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from lmtrain.core.stopping import SAME_MOMENT

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")  # of control groups v2: "200000 100000" is two CPUs, "max 100000" all


def cores() -> int:
    """Those that this process may use. A container with a quota shows all of its host's, of which more than the quota
    only wait for each other."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = _QUOTA.read_text().split()
        if quota != "max":
            count = min(count, max(1, round(int(quota) / int(period))))
    return count


def begin_child() -> None:
    """Leave signals to the parent, which decides when to end, and end with it, also when it is killed."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def begin_loader(number: int, then: Callable[[int], None] | None = None) -> None:
    """The same for worker ``number`` of a torch ``DataLoader``, before ``then``; torch sees to its end.

    Schedulers and torchrun signal whole process groups. A worker that ends then breaks the step which its trainer has
    yet to finish. SIGTERM is also how torch ends a worker that is stuck, some seconds before it asks again: the second
    time it is heeded.
    """
    for name in ("SIGINT", "SIGUSR1", "SIGHUP"):
        if kind := getattr(signal, name, None):
            signal.signal(kind, signal.SIG_IGN)
    # A worker may be stuck where Python's handlers never run; what hears of signals by a pipe runs beside it.
    told, tells = os.pipe()
    os.set_blocking(tells, False)
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=_end_when_asked_twice, args=(told,), daemon=True).start()
    if then is not None:
        then(number)


def _end_when_asked_twice(told: int) -> None:
    first: float | None = None
    while numbers := os.read(told, 64):
        if signal.SIGTERM not in numbers:
            continue
        now = time.monotonic()
        first = now if first is None else first
        if now - first > SAME_MOMENT:
            os._exit(0)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
