"""The matrix products of an AMD processor: MKL's kernels for AVX2 and AVX-512, which it keeps for Intel's.

PyTorch's wheels for x86 hold MKL. It asks one question before it chooses kernels, whether the processor is Intel's
(``mkl_serv_intel_cpu_true``), and multiplies fp32 slower where it is not: on an EPYC (Zen 3) the products of a training
step took 1.1 to 1.7 times as long, a step of the benchmark's small GPT-2 a quarter longer. A library that answers yes,
loaded before torch, is what PyTorch's maintainers advise (github.com/pytorch/builder/pull/1245; found by Daniël de Kok,
danieldk.eu/Posts/2020-08-31-MKL-Zen.html). What the processor can do MKL finds out by itself, as on Intel's.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

SWITCH = "LMTRAIN_MKL_AS_ON_INTEL"
_QUESTION = "mkl_serv_intel_cpu_true"
_ANSWER = f"int {_QUESTION}(void) {{ return 1; }}\n"
_CPUINFO = Path("/proc/cpuinfo")
_NOT_INTELS = {"AuthenticAMD", "HygonGenuine"}
_NEEDED = {"avx2", "fma"}
_COMPILER_S = 20.0


def use_intel_kernels(environment: Mapping[str, str] = os.environ) -> bool:
    """Before torch is imported: have MKL take the processor for one of Intel's; True where it will.

    It takes a C compiler (``$CC``, else ``cc``) and 0.07 s. Does nothing where torch is there already, on other
    processors and systems, without a compiler, and where ``LMTRAIN_MKL_AS_ON_INTEL`` is 0.
    """
    if answers_for_mkl():
        return True
    if environment.get(SWITCH) == "0" or "torch" in sys.modules or not _gains():
        return False
    compiler = _compiler(environment)
    if compiler is None:
        return False
    with suppress(OSError, subprocess.SubprocessError), tempfile.TemporaryDirectory(prefix="lmtrain-") as folder:
        library = Path(folder) / "answer.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"], input=_ANSWER.encode(),
                       capture_output=True, check=True, timeout=_COMPILER_S)  # fmt: skip
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return answers_for_mkl()


def answers_for_mkl() -> bool:
    """Whether MKL hears in this process that the processor is Intel's; also of a library that the user preloaded."""
    if sys.platform != "linux":
        return False
    with suppress(AttributeError):  # nobody answers before MKL itself does
        return bool(getattr(ctypes.CDLL(None), _QUESTION)())
    return False


def lacks_compiler(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a compiler is all that is missing for it."""
    wanted = environment.get(SWITCH) != "0" and _gains() and not answers_for_mkl()
    return wanted and _compiler(environment) is None


def _compiler(environment: Mapping[str, str]) -> str | None:
    return shutil.which(environment.get("CC") or "cc")


def _gains() -> bool:
    """An AMD processor with what the kernels are made of."""
    if sys.platform != "linux":
        return False
    with suppress(OSError):
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
        said = {name.strip(): value.split() for name, _, value in (line.partition(":") for line in lines)}
        return bool(_NOT_INTELS & set(said.get("vendor_id", []))) and set(said.get("flags", [])) >= _NEEDED
    return False
