"""In which number format to multiply. Weights stay fp32; autocast does the rest."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, cast

import torch

from lmtrain.core.errors import UserError
from lmtrain.models.formats import FORMATS, Precision
from lmtrain.models.still import format_held

_WORTHWHILE = 1.5  # autocast costs conversions: a smaller gain in the products is lost again
_SIDE = 256  # a product of 256³ takes 1 ms at 30 GFLOP/s
_BUDGET_S = 0.025  # for each format


@dataclass(frozen=True, slots=True)
class Decision:
    """What was taken, and why, in words for the log and ``decisions.json``."""

    name: Precision
    reason: str

    @property
    def arguments(self) -> dict[str, Any]:
        """As :class:`transformers.TrainingArguments` takes it."""
        return {name: self.name == name for name in ("bf16", "fp16")}


def choose_precision(
    requested: str, device: torch.device, flag: str = "--precision", instead: str = "use auto, bf16 or fp32"
) -> Decision:
    """``requested`` by ``flag`` if ``device`` can; for ``auto`` bf16 where the hardware is fast at it, else fp32.

    Raises :class:`UserError` for fp16 on a CPU, with what to do ``instead``. Takes at most about 50 ms.
    """
    if requested == "auto":
        return _automatic(device)
    if requested not in FORMATS:
        raise UserError(f"{requested} is not one of auto, fp32, bf16, fp16", flag="--precision")
    if requested == "fp16" and device.type == "cpu":
        raise UserError(
            f"fp16 is not trained on a CPU: no CPU is faster at it, and small gradients become 0; {instead}", flag=flag
        )
    if requested == "bf16" and device.type == "cpu" and not _cpu_has_bf16():
        return Decision("bf16", f"{flag}; this CPU has no bf16 instructions, so fp32 is faster")
    if requested == "bf16" and device.type == "cuda" and not _gpu_has_bf16(device):
        return Decision("bf16", f"{flag}; this GPU has no bf16 instructions and emulates them")
    return Decision(cast(Precision, requested), flag)


def _automatic(device: torch.device) -> Decision:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if _gpu_has_bf16(device):
            return Decision("bf16", f"{name} multiplies it in hardware")
        return Decision("fp32", f"{name} has no bf16 instructions")
    if device.type != "cpu":
        return Decision("fp32", f"bf16 is not proven on {device.type}")
    if not _cpu_has_bf16():
        return Decision("fp32", "this CPU has no bf16 instructions")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # every process must come to the same answer, so none measures
        return Decision("bf16", "this CPU has bf16 instructions")
    gain = _seconds(torch.float32) / _seconds(torch.bfloat16)
    if gain >= _WORTHWHILE:
        return Decision("bf16", f"this CPU multiplies it {gain:.1f}× faster than fp32")
    return Decision("fp32", f"this CPU multiplies bf16 only {gain:.1f}× as fast")


def _gpu_has_bf16(device: torch.device) -> bool:
    if torch.version.hip is not None:
        return torch.cuda.is_bf16_supported()
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _cpu_has_bf16() -> bool:
    """Whether the CPU claims bf16 products. Asked before measuring: emulated, one would take a second."""
    claimed = torch.cpu.get_capabilities()
    return any(claimed.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _seconds(dtype: torch.dtype) -> float:
    """The fastest of a few products within the budget; not the first, which prepares the kernel."""
    left = torch.ones(_SIDE, _SIDE, dtype=dtype)
    torch.mm(left, left)
    best = float("inf")
    end = time.perf_counter() + _BUDGET_S
    while True:
        start = time.perf_counter()
        torch.mm(left, left)
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return best


def require_format(model: Any, decision: Decision) -> None:
    """Raise :class:`UserError` where the attention kernel takes 16 bits alone, and products are made in fp32."""
    if decision.name == "fp32" and format_held(model) is not next(model.parameters()).dtype:
        raise UserError(
            f"{model.config._attn_implementation} multiplies in bf16 or fp16; add --precision bf16, or leave it out",
            flag="--attn_implementation",
        )


def compute_dtype(args: Any, model: Any) -> torch.dtype:
    """What the products of a run of ``model`` with these ``TrainingArguments`` are made in."""
    asked = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    return asked or next(w.dtype for w in model.parameters() if w.is_floating_point())


def precision_of(args: Any, model: Any) -> Precision:
    """The name of :func:`compute_dtype`; fp32 for a format that has none here."""
    names = {dtype: cast(Precision, name) for name, dtype in FORMATS.items()}
    return names.get(compute_dtype(args, model), "fp32")
