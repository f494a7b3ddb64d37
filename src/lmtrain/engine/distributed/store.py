"""The store at the address that a launcher gave all processes of a run: what one leaves there the others read."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from typing import Any, Final

import torch

from lmtrain.core.errors import UserError, first_line
from lmtrain.core.launching import processes, rank

PATIENCE: Final = "LMTRAIN_MEETING_TIMEOUT"  # an environment variable, in seconds
PATIENCE_S: Final = 300.0  # between the first process that has imported torch and the last
LOOK_EVERY: Final = 0.2  # seconds


def address() -> str:
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def connect(limit: float | None) -> Any:
    """Raises :class:`UserError` when it is not there within ``limit`` seconds; without one it waits."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    by_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = rank() == 0 and not by_launcher
    began = time.monotonic()
    while not serves and (wrong := _unanswered(host, port)):  # torch's own waiting cannot be interrupted
        if limit is not None and time.monotonic() - began > limit:
            raise UserError(
                f"process {rank()} of {processes()} has found nobody at {address()} for {limit:.0f} s ({wrong}): is "
                f"process 0 running there, and is the port open between the machines? {PATIENCE} is how many seconds "
                "to wait"
            )
        time.sleep(LOOK_EVERY)
    try:
        return torch.distributed.TCPStore(
            host, port, is_master=serves, wait_for_workers=False, multi_tenant=True,
            timeout=timedelta(seconds=limit or PATIENCE_S),
        )  # fmt: skip
    except RuntimeError as error:
        why = first_line(error)
        taken = "EADDRINUSE" in str(error) or "already in use" in str(error)
        raise UserError(
            f"the processes cannot meet at {address()}: "
            + ("another program has this port; set MASTER_PORT to another one" if taken else why)
        ) from error


def _unanswered(host: str, port: int) -> str | None:
    """Why nobody answers; None when somebody does."""
    try:
        with socket.create_connection((host, port), timeout=5):
            return None
    except OSError as error:
        return error.strerror or str(error)
