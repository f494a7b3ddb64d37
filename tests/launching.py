"""Scripts of the tests run on one process and on several, as a launcher runs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from forked import run_ranks

TESTS = Path(__file__).resolve().parent
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are forked, and gloo needs libuv there"),
]


def launch(script: Path, *words: object, processes: int = 1, timeout: float = 150) -> None:
    """Run a script that may import from tests/; a failure shows what it wrote."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",  # the processes meet by gloo; Accelerate shards over GPUs wherever there are some
    }
    ends = run_ranks([script, *words], processes, env=environment, timeout=timeout)
    assert not any(end.returncode for end in ends), "\n".join(end.stderr for end in ends if end.returncode)
