"""Several processes end together, or the last one is left waiting and the first one aborts."""

from __future__ import annotations

import gc

import torch


def leave_together() -> None:
    """Wait for the other processes, then leave their group. Call it when no trainer is alive; alone it does nothing.

    A process that exits while gloo's threads still run is aborted by the C++ runtime ("terminate called without an
    active exception"), and its launcher then reports a finished run as failed.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # a model wrapped in DDP is part of cycles and has to go before its group
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
