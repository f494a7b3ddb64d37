"""Several processes end together, or the last one is left waiting and the first one aborts."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from lmtrain.core.errors import Interrupted

_T = TypeVar("_T")


def to_the_end(work: Callable[[], _T]) -> _T:
    """What ``work`` returns, once all processes have left their group; or the interruption that ended it for all."""
    interrupted = None
    try:
        result = work()
    except Interrupted as error:
        interrupted = error.with_traceback(None)  # which would keep the trainer alive
    if interrupted is None or interrupted.together:
        leave_together()
    if interrupted is not None:
        raise interrupted
    return result


def leave_together() -> None:
    """Wait for the other processes, then leave their group. Call it when no trainer is alive; alone it does nothing.

    A process that exits while gloo's threads still run is aborted by the C++ runtime ("terminate called without an
    active exception"), and its launcher then reports a finished run as failed.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # a model wrapped in DDP is part of cycles and has to go before its group
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
