"""A disk without room: the system itself refuses to write, with its own errors, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


def allow_files_of(size: int | None) -> None:
    """From now on no file of this process may grow beyond ``size`` bytes; None: any may. Unix only.

    A write that would exceed it is cut off there, and the next one fails (EFBIG, "File too large"); Python ignores the
    signal that comes with it. Smaller files can be written, so records stay possible where weights are not.
    """
    resource = pytest.importorskip("resource")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Inside the block :func:`allow_files_of` ``size`` bytes."""
    allow_files_of(size)
    try:
        yield
    finally:
        allow_files_of(None)


@contextmanager
def meanwhile(when: Callable[[], bool], act: Callable[[], object]) -> Iterator[None]:
    """``act`` in a thread as soon as ``when`` is true; what runs inside has to live so long."""
    over, acted = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.is_set() and not acted.is_set():
            if when():
                act()
                acted.set()
            time.sleep(0.002)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
    assert acted.is_set(), "it ended too early"
