"""What all tests need of the process that they run in."""

from __future__ import annotations

import gc
import os
import signal

import pytest

import as_commands_do  # noqa: F401 (before torch)

# A shell starts what it runs in the background with Ctrl-C ignored, and nohup does so with SIGHUP; the commands under
# test would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The compiler would start a process for each processor, and each would import torch for a few lines to compile.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def pytest_collection() -> None:
    """What is imported now stays, and is no garbage: nobody looks through it meanwhile."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor afterwards: each training looks for garbage several times, and it took a third of a second each time."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what is made once a file run in one process (``--dist loadgroup``): else each makes it anew."""
    for item in items:
        if isinstance(item, pytest.Function):
            used = item._fixtureinfo.name2fixturedefs.values()
            if any(fixtures[-1].scope == "module" for fixtures in used) and not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group(item.path.name))
