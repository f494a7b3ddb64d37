"""The first of two processes works for longer than their group would wait, then fails; each writes what it met.

(Run by test_processes.py.)"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

import torch

from lmtrain.core.errors import Interrupted, OwnResultWrong
from lmtrain.engine.processes import by_the_first, leave_together


def main(folder: Path) -> None:
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=2))
    rank = torch.distributed.get_rank()
    met = []

    def slow() -> None:
        time.sleep(4)
        met.append("worked")

    def wrong() -> None:
        raise OwnResultWrong("it differs")

    def full() -> None:
        raise OSError("no space")

    def stopped() -> None:
        raise Interrupted("SIGTERM")

    by_the_first(slow)
    for work in (wrong, full, stopped):
        try:
            by_the_first(work)
        except Exception as error:
            met.append(f"{type(error).__name__}: {error}")
    (folder / f"{rank}.txt").write_text("\n".join(met))
    leave_together()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
