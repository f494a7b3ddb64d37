"""Where the examples lie, and how a user would run one."""

from __future__ import annotations

import os
from pathlib import Path

import forked

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def run_example(name: str, *words: object, limit: float = 150) -> str:
    """What ``python examples/NAME`` prints; a failure shows what it wrote."""
    done = forked.run([EXAMPLES / name, *words], env=environment(), timeout=limit)
    assert done.returncode == 0, done.stderr
    return done.stdout
