"""MKL is told that the processor is Intel's where it is AMD's and torch is still to come."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmtrain.core import mkl

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="on Linux the library that is loaded first answers")

AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu sse2 fma avx2\n"
PROGRAM = """
import json, sys
from pathlib import Path
from lmtrain.cli.startup import heavy_imports
from lmtrain.core import mkl
mkl._CPUINFO = Path(sys.argv[1])
with heavy_imports():
    import torch
draw = torch.Generator().manual_seed(0)
worst = 0.0
for rows, inner, columns in [(1, 1, 1), (3, 70, 5), (129, 513, 257), (64, 768, 1001), (500, 31, 64)]:
    left, right = (torch.randn(rows, inner, generator=draw), torch.randn(columns, inner, generator=draw))
    exact = left.double() @ right.double().T
    for found in (left @ right.T, left @ right.T.contiguous(), (right @ left.T).T):
        worst = max(worst, float((found - exact).abs().max() / exact.abs().max()))
print(json.dumps([mkl.answers_for_mkl(), mkl.use_intel_kernels(), worst]))
"""


@pytest.mark.skipif(shutil.which(os.environ.get("CC") or "cc") is None, reason="needs a C compiler")
def test_a_command_answers_and_multiplies_right(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(AMD)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "cpuinfo")], check=True,
                          capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})  # fmt: skip
    answers, again, worst = json.loads(done.stdout)
    assert answers and again
    assert 0 < worst < 2e-6, "relative to the largest"
    assert [path.name for path in tmp_path.iterdir()] == ["cpuinfo"], "nothing is left behind"


@pytest.mark.parametrize(
    ("cpuinfo", "loaded", "environment", "tried"),
    [
        (AMD, False, {"CC": "false"}, 1),  # and fails, without a word
        (AMD.replace("AuthenticAMD", "HygonGenuine"), False, {"CC": "false"}, 1),
        (AMD, False, {"CC": "no-such-compiler"}, 0),
        (AMD, True, {"CC": "false"}, 0),
        (AMD, False, {"CC": "false", mkl.SWITCH: "0"}, 0),
        (AMD.replace("AuthenticAMD", "GenuineIntel"), False, {"CC": "false"}, 0),
        (AMD.replace(" avx2", ""), False, {"CC": "false"}, 0),
        ("", False, {"CC": "false"}, 0),
    ],
    ids=["AMD", "Hygon", "no compiler", "torch is there", "switched off", "Intel", "no AVX2", "unknown"],
)
def test_only_where_it_helps(
    cpuinfo: str,
    loaded: bool,
    environment: dict[str, str],
    tried: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled, run = list[str](), subprocess.run

    def compiling(words: list[str], **how: Any) -> Any:
        compiled.append(words[0])
        return run(words, **how)

    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(mkl, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(mkl, "answers_for_mkl", lambda: False)
    monkeypatch.setattr(mkl.sys, "modules", {"torch": SimpleNamespace()} if loaded else {})
    monkeypatch.setattr(mkl.subprocess, "run", compiling)
    assert not mkl.use_intel_kernels(environment)
    assert len(compiled) == tried
    assert mkl.lacks_compiler(environment) == (environment["CC"] == "no-such-compiler")
