"""A clock for work that a device does while Python goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def now(device: torch.device) -> float:
    """Seconds on a clock, once ``device`` has done all that it was asked for."""
    if device.type != "cpu":
        import torch

        torch.accelerator.synchronize(device)
    return time.perf_counter()
