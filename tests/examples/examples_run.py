"""Where the examples lie, and how a user would run one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def run_example(name: str, *words: object, limit: float = 150) -> str:
    """What ``python examples/NAME`` prints; a failure shows what it wrote."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, done.stderr
    return done.stdout
