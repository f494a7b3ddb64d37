"""The first of two processes works for longer than their group would wait, then fails; each writes what it met.

(Run by test_processes.py.)"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from lmtrain.core.errors import Interrupted, OwnResultWrong
from lmtrain.engine.checkpoints.sharded import together
from lmtrain.engine.distributed import processes
from lmtrain.engine.distributed.processes import by_the_first, leave_together
from lmtrain.rehearsal.agreeing import Together


def main(folder: Path) -> None:
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=2))
    rank = torch.distributed.get_rank()
    met = []
    PartialState(cpu=True)  # by which a rehearsal exchanges: it takes the group that is there

    def slow() -> None:
        time.sleep(4)
        met.append("worked")

    def wrong() -> None:
        raise OwnResultWrong("it differs")

    def full() -> None:
        raise OSError("no space")

    def stopped() -> None:
        raise Interrupted("SIGTERM")

    def by_all() -> None:
        together(stopped if rank == 0 else lambda: None)

    def rehearsed() -> None:
        rehearsal = Together(2, rank)
        with rehearsal.trying():
            (stopped if rank == 0 else lambda: None)()
        rehearsal.agree()

    processes._SILENCE, processes._SAYS_SO_EVERY = timedelta(seconds=2), 0.5  # type: ignore[attr-defined]
    by_the_first(slow)
    for act in (lambda: by_the_first(wrong), lambda: by_the_first(full), lambda: by_the_first(stopped), by_all,
                rehearsed):  # fmt: skip
        try:
            act()
        except (Exception, Interrupted) as error:
            met.append(f"{type(error).__name__}: {error}")
    (folder / f"{rank}.txt").write_text("\n".join(met))
    leave_together()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
