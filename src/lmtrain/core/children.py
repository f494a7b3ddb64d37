"""Processes that work for another one: how many there may be, and what one does first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin_child() -> None:
    """Leave signals to the parent, which decides when to end, and end with it, also when it is killed."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
