"""What all tests need of the process that they run in."""

from __future__ import annotations

import gc
import signal

# A shell starts what it runs in the background with Ctrl-C ignored, and the commands under test would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection() -> None:
    """What is imported now stays, and is no garbage: nobody looks through it meanwhile."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor afterwards: each training looks for garbage several times, and it took a third of a second each time."""
    gc.freeze()
    gc.enable()
