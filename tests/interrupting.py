"""A signal to the test's own process, while a command runs in it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def signalled(when: Callable[[], bool], number: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """Send it as soon as ``when`` is true; what runs inside has to take it."""
    over = threading.Event()
    sent: list[float] = []

    def watch() -> None:
        while not over.is_set():
            if when():
                sent.append(time.monotonic())
                os.kill(os.getpid(), number)
                return
            time.sleep(0.002)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
    assert sent, "it ended before the signal was due"


def logged_losses(folder: Path, count: int = 1) -> Callable[[], bool]:
    """Whether the run in ``folder`` has written so many lines with a loss."""
    log = folder / "metrics.jsonl"
    return lambda: log.is_file() and log.read_text(encoding="utf-8").count('"loss"') >= count
