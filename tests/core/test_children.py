from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from typing import Any

import pytest

from lmtrain.core.children import begin_loader
from lmtrain.core.stopping import SAME_MOMENT


def stuck_in_native_code(ready: Any) -> None:
    """Where no handler of Python's runs: it takes a lock twice."""
    begin_loader(0)
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    library.pthread_mutex_init(mutex, None)
    ready.set()
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


@pytest.mark.skipif(sys.platform != "linux", reason="a mutex made by hand")
def test_a_worker_that_is_stuck_ends_when_it_is_asked_twice() -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=stuck_in_native_code, args=(ready,), daemon=True)
    worker.start()
    try:
        assert ready.wait(20) and worker.pid is not None
        for _ in range(2):  # a scheduler's signals come at once
            os.kill(worker.pid, signal.SIGTERM)
        worker.join(SAME_MOMENT + 0.5)
        assert worker.is_alive(), "they may be for the step that is under way"
        os.kill(worker.pid, signal.SIGTERM)
        worker.join(20)
        assert worker.exitcode == 0
    finally:
        worker.kill()
