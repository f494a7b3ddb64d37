"""Afterwards everything is as it was: weights' gradients, modes, buffers, and every random stream."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def same_streams() -> Iterator[None]:
    """Python's, NumPy's and torch's random states are put back, those of all GPUs too."""
    python, numpy, main = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(main)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


@contextmanager
def same_model(model: torch.nn.Module) -> Iterator[None]:
    """The mode of each module and the content of each buffer are put back, gradients dropped.

    Weights are not: nothing here changes them.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        for module, was in modes:
            module.training = was
        with torch.no_grad():
            for buffer, was_there in buffers:
                buffer.copy_(was_there)


def stand_in(trainer: Any) -> Any:
    """A trainer that does what ``trainer`` does with its model, and notes and tells nothing: no callback hears of it,
    and log, counters and controls are its own."""
    other = copy.copy(trainer)
    other.state, other.control = copy.deepcopy(trainer.state), copy.deepcopy(trainer.control)
    other.callback_handler = copy.copy(trainer.callback_handler)
    other.callback_handler.callbacks = []
    return other
