"""In processes of their own, because the setting cannot be taken back."""

from __future__ import annotations

import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, sys
import torch
from lmtrain.core.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def touch():
    torch.empty(16 << 20).fill_(1.0)  # 64 MB
for _ in range(20):  # the heap grows to what it needs
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_large_tensors_are_not_fetched_from_the_kernel_again() -> None:
    def faults(mode: str) -> int:
        done = subprocess.run([sys.executable, "-c", PAGE_FAULTS, mode], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < faults("plain") / 10
