"""In processes of their own, because the setting cannot be taken back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import forked

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
def test_large_tensors_are_not_fetched_from_the_kernel_again(tmp_path: Path) -> None:
    (tmp_path / "faults.py").write_text(PAGE_FAULTS)

    def faults(mode: str) -> int:
        return int(forked.run([tmp_path / "faults.py", mode]).stdout)

    assert faults("kept") < faults("plain") / 10
