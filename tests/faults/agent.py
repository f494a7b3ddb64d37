"""torchrun with workers that are forks: ``python agent.py JSON_OF_LAUNCH_CONFIG clm ...``.

The agent, its store and its rendezvous are torch's own; a worker only spares the imports that ``-m lmtrain`` makes.
It writes its number into ``$PIDS/RANK`` and its exit code into ``$PIDS/RANK.code``, and kills itself with SIGKILL where
``$DIES`` says so. ``$HOST`` is the number of a process in whose network namespace all of it runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from lmtrain.cli.main import main
from lmtrain.engine.checkpoints import write
from lmtrain.engine.trainer.stopping import StopWhenAsked


def worker(*words: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # before and after the command, which listens itself
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rank, sys.argv = os.environ["RANK"], ["lmtrain", *words]
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(
        0, {cpus[int(rank) % len(cpus)]}
    )  # so many threads as it may use, and the bits follow from that
    (Path(os.environ["PIDS"]) / rank).write_text(str(os.getpid()))
    # "0:1:step, 1:0:save": rank 1 of the first life dies when a step ends, rank 0 of the second during a save.
    for life, who, where in (death.split(":") for death in os.environ.get("DIES", "").split()):
        if (life, who) == (os.environ["TORCHELASTIC_RESTART_COUNT"], rank):
            die_in(where)
    code = int(main(words))
    (Path(os.environ["PIDS"]) / f"{rank}.code").write_text(str(code))
    raise SystemExit(code)


def die_in(where: str) -> None:
    if where == "start":
        os.kill(os.getpid(), signal.SIGKILL)
    if where == "step":  # before the first checkpoint
        die_at(StopWhenAsked, "on_step_end", 2)
    if where == "save":  # all is written, and the name that makes it count is not given yet
        die_at(write, "write_manifest", 3)
    if where == "evaluation":
        die_at(StopWhenAsked, "on_prediction_step", 2)


def die_at(owner: Any, name: str, time: int) -> None:
    """When ``name`` is called for the so-many-th time."""
    as_it_was: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def dies(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == time:
            os.kill(os.getpid(), signal.SIGKILL)
        return as_it_was(*args, **kwargs)

    setattr(owner, name, dies)


def move_to(process: str) -> None:
    """Into the network namespace of a process, with all threads and children to come; first into the user namespace
    that it belongs to, where that is another one. This process has one thread so far."""
    libc = ctypes.CDLL(None, use_errno=True)
    for kind, number in (("user", 0x10000000), ("net", 0x40000000)):  # CLONE_NEWUSER, CLONE_NEWNET
        namespace = Path("/proc", process, "ns", kind)
        if namespace.readlink() == Path("/proc/self/ns", kind).readlink():
            continue
        with namespace.open() as opened:
            if libc.setns(opened.fileno(), number):
                error = ctypes.get_errno()
                raise OSError(error, f"no way into {namespace} ({os.strerror(error)})")


if __name__ == "__main__":
    if host := os.environ.get("HOST"):
        move_to(host)
    launch = {"run_id": "test", "rdzv_backend": "c10d", "monitor_interval": 0.05, **json.loads(sys.argv[1])}
    elastic_launch(LaunchConfig(**launch, start_method="fork"), worker)(*sys.argv[2:])
