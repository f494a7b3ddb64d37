"""In processes of their own, because the setting cannot be taken back."""

from __future__ import annotations

import os
import subprocess
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


LARGE_PAGES = """
import mmap
from lmtrain.cli.startup import heavy_imports
with heavy_imports():
    import torch
tensors = [torch.empty(size) for size in (3 << 20, 1 << 20, 700_000)]
print(*(tensor.data_ptr() % mmap.PAGESIZE for tensor in tensors))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux alone")
def test_in_a_command_large_tensors_begin_at_a_page_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "pages.py").write_text(LARGE_PAGES)

    def offsets(**environment: str) -> list[int]:
        command = [sys.executable, str(tmp_path / "pages.py")]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment})
        return [int(word) for word in done.stdout.split()]

    assert offsets() == [0, 0, 0]
    assert any(offsets(THP_MEM_ALLOC_ENABLE="0"))
