"""What ``torch.cuda`` says of the GPU of ``gpu.cpp``: a PyTorch for CPUs has only stubs there."""

from __future__ import annotations

import ctypes
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch

from emulated_gpu import GPU

NAME = "Emulated GPU"


class Event:
    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self._at = 0.0

    def record(self, stream: Any = None) -> None:
        self._at = time.perf_counter()

    def wait(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Event) -> float:
        return (other._at - self._at) * 1000


class Stream:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, other: Any) -> None: ...

    def synchronize(self) -> None: ...

    def record_event(self, event: Any = None) -> Event:
        event = event or Event()
        event.record()
        return event


def set_memory(gigabytes: float) -> None:
    """How much the GPU has; a fork's own."""
    GPU.gpu_set_capacity(int(gigabytes * 2**30))


def _install() -> None:
    """Make ``torch.cuda`` answer for the GPU."""
    for name in ("gpu_allocated", "gpu_peak", "gpu_capacity"):
        getattr(GPU, name).restype = ctypes.c_int64
    GPU.gpu_set_capacity.argtypes = [ctypes.c_int64]
    cuda: Any = torch.cuda
    properties = SimpleNamespace(
        name=NAME, major=9, minor=0, total_memory=GPU.gpu_capacity(), multi_processor_count=100,
        shared_memory_per_multiprocessor=1 << 16, max_threads_per_multi_processor=2048, warp_size=32, gcnArchName="",
    )  # fmt: skip
    for name, value in {
        "getDevice": 0, "setDevice": 0, "maybeExchangeDevice": 0, "exchangeDevice": 0, "getDeviceCount": 1,
        "synchronize": None, "emptyCache": None, "isInBadFork": False, "getCurrentRawStream": 0,
    }.items():  # fmt: skip
        setattr(torch._C, f"_cuda_{name}", _always(value))
    for module in (cuda, cuda.random, cuda.memory):
        if hasattr(module, "_lazy_init"):
            module._lazy_init = _always(None)
        if hasattr(module, "_lazy_call"):
            module._lazy_call = lambda call, **_: call()
    for name, value in {
        "init": None, "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0,
        "set_device": None, "ipc_collect": None, "empty_cache": None, "synchronize": None, "get_device_name": NAME,
        "get_device_capability": (9, 0), "get_device_properties": properties, "is_bf16_supported": True,
        "memory_stats": {}, "current_stream": Stream(), "default_stream": Stream(), "stream": nullcontext(),
    }.items():  # fmt: skip
        setattr(cuda, name, _always(value))
    for name, read in {
        "memory_allocated": GPU.gpu_allocated, "memory_reserved": GPU.gpu_allocated,
        "max_memory_allocated": GPU.gpu_peak, "max_memory_reserved": GPU.gpu_peak,
        "reset_peak_memory_stats": GPU.gpu_reset_peak,
        "mem_get_info": lambda: (GPU.gpu_capacity() - GPU.gpu_allocated(), GPU.gpu_capacity()),
    }.items():  # fmt: skip
        setattr(cuda, name, _calling(read))
    cuda._exchange_device, cuda._maybe_exchange_device = _always(0), _always(0)
    cuda.Event, cuda.Stream = Event, Stream
    _storages()
    cuda.default_generators = (torch.Generator("cuda"),)


def _storages() -> None:
    """What PyTorch does with bare storages of a GPU only where it was built with CUDA."""
    storage: Any = torch.UntypedStorage
    clone, resize = storage.clone, storage.resize_

    def bytes_of(there: Any) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8, device=there.device).set_(there)

    def cloned(there: Any) -> Any:
        return bytes_of(there).clone().untyped_storage() if there.device.type == "cuda" else clone(there)

    def resized(there: Any, size: int) -> Any:
        if there.device.type != "cuda":
            return resize(there, size)
        torch.ops.emulated_gpu.resize_storage(bytes_of(there), size)
        return there

    storage.clone, storage.resize_ = cloned, resized


def _always(value: Any) -> Any:
    return lambda *args, **kwargs: value


def _calling(read: Any) -> Any:
    return lambda *args, **kwargs: read()


_install()
