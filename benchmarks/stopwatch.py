"""How long a command takes until it says that it has come to a certain point."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from prepare import environment


def seconds_until(seen: Callable[[str], bool], command: list[Any], work: Path) -> float:
    """Seconds from the start of the process to the line, of standard error, of which ``seen`` is true; the process and
    those that it started are then killed."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=environment(work),
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if seen(line):
                return time.perf_counter() - began
    finally:
        for one in (*psutil.Process(process.pid).children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                one.kill()  # the processes of a launcher are in sessions of their own
        process.wait()
        process.stderr.close()
    raise SystemExit("".join(said[-20:]) + f"\n{command[1:4]} ended before it came so far")
