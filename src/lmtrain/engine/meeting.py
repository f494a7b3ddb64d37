"""Where the processes of a launcher wait for each other without a limit of time.

``--ddp_timeout`` is for exchanges in training. One process may prepare its data for hours longer than another, on a
machine of its own or with a slower disk, and none may be given up for that. So whoever is ready waits here, at the
address that the launcher gave them all, and not in an exchange.
"""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from itertools import count
from typing import Any, Final

import torch

from lmtrain.core.console import Say, say

_ADDRESS: Final = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
_LOOK_EVERY = 0.2  # seconds
_WORTH_SAYING = 10.0  # seconds of waiting
_stores: list[Any] = []  # of this process, once it has one: the first process's serves the others, and has to stay
_visits = count()  # all processes wait at the same places, in the same order


def wait_for_all(say: Say = say) -> None:
    """Return when all processes have come here, however long that takes; signals are taken meanwhile."""
    if not _are_several() or not torch.distributed.is_available():
        return
    world, began, said = int(os.environ["WORLD_SIZE"]), time.monotonic(), False
    if not _stores:
        _stores.append(_store())
    place = f"lmtrain/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_visits)}"
    _stores[0].add(place, 1)
    while (ready := _stores[0].add(place, 0)) < world:
        if not said and time.monotonic() - began > _WORTH_SAYING:
            said = True
            say("processes", f"{ready} of {world} are ready; waiting for the others, which still prepare")
        time.sleep(_LOOK_EVERY)


def make_group(backend: str, seconds: float) -> None:
    """The processes' group on CPUs, in which an exchange may take so many ``seconds``; alone it does nothing.

    ``TrainingArguments`` makes one too, where there is none, but on CPUs without the limit (transformers 5.23).
    """
    if _are_several() and torch.distributed.is_available() and not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend, timeout=timedelta(seconds=seconds))


def _are_several() -> bool:
    return all(os.environ.get(name) for name in _ADDRESS) and int(os.environ["WORLD_SIZE"]) > 1


def _store() -> Any:
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    by_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = os.environ["RANK"] == "0" and not by_launcher
    while not serves and not _answers(host, port):  # torch's own waiting cannot be interrupted
        time.sleep(_LOOK_EVERY)
    return torch.distributed.TCPStore(host, port, is_master=serves, wait_for_workers=False, multi_tenant=True)


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False
