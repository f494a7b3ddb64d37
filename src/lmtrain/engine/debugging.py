"""``--debug underflow_overflow``: the library's look at the numbers that go through every module."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainingArguments, debug_utils
from transformers.debug_utils import DebugOption

_plain = debug_utils.get_abs_min_max


def look_at_masks(arguments: TrainingArguments) -> None:
    """Let it look at masks of truth values, too, which padded and packed batches have: it asks for their absolute
    values, which torch does not know (transformers 5.17 to 5.23)."""
    if DebugOption.UNDERFLOW_OVERFLOW in (arguments.debug or ()):
        debug_utils.get_abs_min_max = _of_masks_too


def _of_masks_too(var: torch.Tensor, ctx: Any) -> str:
    return str(_plain(var.to(torch.uint8) if var.dtype == torch.bool else var, ctx))
