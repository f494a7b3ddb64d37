"""The garbage collector rests during imports, and works again after them; NumPy comes alone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from lmtrain.cli.startup import heavy_imports, light_imports


@pytest.mark.parametrize("imports", [heavy_imports, light_imports])
def test_the_collector_rests_and_then_works_again(imports: Callable[[], AbstractContextManager[None]]) -> None:
    before = gc.get_freeze_count()
    with imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    gc.unfreeze()


@pytest.mark.parametrize("imports", [heavy_imports, light_imports])
def test_it_works_again_after_a_failed_import(imports: Callable[[], AbstractContextManager[None]]) -> None:
    with pytest.raises(ImportError), imports():
        raise ImportError("no such module")
    assert gc.isenabled()


ALONE = """
import os
from lmtrain.cli.startup import light_imports
with light_imports():
    import numpy
print(len(os.listdir("/proc/self/task")), os.environ.get("OPENBLAS_NUM_THREADS"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux lists the threads of a process")
def test_numpy_begins_no_threads_for_a_command_that_multiplies_nothing() -> None:
    def threads(**asked: str) -> list[str]:
        given = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"} | asked
        done = subprocess.run([sys.executable, "-c", ALONE], check=True, capture_output=True, text=True, env=given)
        return done.stdout.split()

    assert threads() == ["1", "None"], "and what it starts hears nothing of it"
    if len(os.sched_getaffinity(0)) > 1:
        assert threads(OPENBLAS_NUM_THREADS="2") == ["2", "2"]
