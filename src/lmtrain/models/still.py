"""A model held still, so that two ways of running it can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Without dropout and autocast; every module's mode is put back, whatever it was."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            yield
    finally:
        for module, was in training:
            module.training = was
