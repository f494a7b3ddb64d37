"""The number formats that products are made in, by the names that options have for them."""

from __future__ import annotations

from typing import Final, Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
FORMATS: Final[dict[str, torch.dtype]] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def sixteen_bits(precision: str) -> torch.dtype | None:
    """The format that ``precision`` names; None for fp32."""
    return None if precision == "fp32" else FORMATS[precision]


def products_in(precision: str, device: torch.device) -> torch.autocast:
    """Inside, products are made in ``precision``: autocast, which does nothing for fp32."""
    low = sixteen_bits(precision)
    return torch.autocast(device.type, low or torch.bfloat16, enabled=low is not None)
