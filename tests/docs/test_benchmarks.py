"""The benchmarks: what they import of the package is there, and memory is that of all processes together."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT

BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


def programs(file: Path) -> Iterator[str]:
    """The text of a benchmark, and of the programs that it holds as text for other processes."""
    text = file.read_text(encoding="utf-8")
    yield text
    yield from re.findall(r'^[A-Z]+ = r?"""(.*?)^"""', text, flags=re.M | re.S)


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.name)
def test_the_names_that_it_imports_exist(file: Path) -> None:
    for program in programs(file):
        for node in ast.walk(ast.parse(program)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lmtrain"):
                module = importlib.import_module(str(node.module))
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, f"{node.module} has no {missing}"


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "held = bytearray(60_000_000); print(flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
held = bytearray(60_000_000)
time.sleep(1)
child.communicate(b"\\n")
"""


def test_memory_is_that_of_all_processes_together() -> None:
    peak_of = runpy.run_path(str(ROOT / "benchmarks" / "prepare.py"))["peak_of"]
    with subprocess.Popen([sys.executable, "-c", PARENT]) as process:
        assert 120e6 < peak_of(process) < 200e6
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as process, pytest.raises(SystemExit):
        peak_of(process)
