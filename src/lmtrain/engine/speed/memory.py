"""How much memory a stretch of work takes at its peak."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from lmtrain.core.allocator import release_freed_memory
from lmtrain.core.launching import processes_here
from lmtrain.models.sharding import part_here

_CLEAR = Path("/proc/self/clear_refs")  # proc(5): writing 5 sets the peak to what is resident now
_STATUS = Path("/proc/self/status")
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class PeakMemory:
    """The most memory since it was made: what tensors take on a GPU, what the process holds in main memory.

    On a CPU outside Linux the system tells no peak that can be reset, and :meth:`bytes` gives what is held now.
    Without ``tidy`` what is garbage counts as held, and nothing is searched for it (which takes up to a second).
    """

    def __init__(self, device: torch.device, *, tidy: bool = True) -> None:
        self._device = device
        if device.type == "cpu" and tidy:
            gc.collect()
            release_freed_memory()
        self.start = held(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif sys.platform == "linux":
            with suppress(OSError):  # a container may forbid it: then the peak is the process's
                _CLEAR.write_text("5")

    @property
    def bytes(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        with suppress(OSError, StopIteration):
            lines = _STATUS.read_text(encoding="utf-8").splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
        return held(self._device)


def held(device: torch.device) -> int:
    """Bytes held now: by tensors on a GPU, by the process in main memory."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def available(device: torch.device) -> int:
    """Bytes that could still be taken: of the GPU with what its allocator keeps for tensors to come, of main memory
    within the limits of a container or of a cluster's job."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return max(0, min([int(psutil.virtual_memory().available), *_left_by_groups()]))


def _left_by_groups() -> Iterator[int]:
    """Bytes that each control group around this process leaves it, where there is a limit (cgroups(7), versions 2 and
    1). What a group uses holds the pages of files, which give way."""
    names = []
    with suppress(OSError):
        names = [line.split(":", 2) for line in _OWN_GROUPS.read_text(encoding="utf-8").splitlines()]
    for controller, limit, used, of_all in (
        ("", "memory.max", "memory.current", ""),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        root = _GROUPS / controller
        # A container sees its own as the root, and may not see what the kernel calls it.
        group = root / next((name for _, which, name in names if controller in which.split(",")), "/").lstrip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
            with suppress(OSError, ValueError):  # no such group, or "max"
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                with suppress(OSError, ValueError):
                    lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
                    counts = dict(line.split(None, 1) for line in lines)
                    left += sum(int(counts.get(f"{of_all}{pages}_file", 0)) for pages in ("active", "inactive"))
                yield left


def free_here(device: torch.device) -> int:
    """Bytes that this process may count on: of main memory, its share among the launcher's on this machine."""
    return available(device) // (processes_here() if device.type == "cpu" else 1)


def needed_by(model: torch.nn.Module, optimizer: Any = None) -> dict[str, int]:
    """Bytes that stay on this process from step to step: ``weights``, ``gradients`` and ``optimizer`` state.

    Without an ``optimizer`` its state is taken as AdamW's: two numbers for each trained weight.
    """
    weights = _bytes_of([*model.parameters(), *model.buffers()])
    gradients = _bytes_of(p for p in model.parameters() if p.requires_grad)
    state = getattr(optimizer, "optimizer", optimizer)  # inside Accelerate's wrapper
    kept = 2 * gradients
    if state is not None and getattr(state, "state", None):
        values = [value for entry in state.state.values() for value in entry.values()]
        kept = _bytes_of(v for v in values if isinstance(v, torch.Tensor))
    return {"weights": weights, "gradients": gradients, "optimizer": kept}


def _bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Of what this process holds of them."""
    return sum(part.numel() * part.element_size() for part in map(part_here, tensors))


def memory_in_use(device: torch.device) -> int:
    """Bytes: the most that tensors took on a GPU, or what the process holds in main memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)
