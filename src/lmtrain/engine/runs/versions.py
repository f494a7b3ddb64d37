"""Which libraries and which machine: what a result or its speed can depend on."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from lmtrain.core.mkl import answers_for_mkl
from lmtrain.core.version import __version__

_LIBRARIES = (
    "torch", "transformers", "accelerate", "tokenizers", "fastokens", "safetensors", "numpy", "peft", "datasets",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result can depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def process() -> dict[str, Any]:
    """What the log of a process begins with."""
    import torch

    device = torch.accelerator.current_accelerator(check_available=True)
    found = versions()
    return {
        "device": "cpu" if device is None else f"{device.type}:{os.environ.get('LOCAL_RANK', '0')}",
        "threads": torch.get_num_threads(),
        "lmtrain": __version__,
        **{name: found[name] for name in ("python", "torch", "transformers", "accelerate") if name in found},
    }


def machine() -> dict[str, Any]:
    """The hardware, as far as results or speed can depend on it."""
    import torch

    found: dict[str, Any] = {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "matrix_kernels": "as on Intel's" if answers_for_mkl() else "the library's choice",
    }
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def _cpu_name() -> str:
    if sys.platform == "linux":
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
