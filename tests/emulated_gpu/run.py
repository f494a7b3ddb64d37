"""``lmtrain``, or a script, with an emulated GPU: ``python run.py LIBRARY GIGABYTES clm …`` or ``… SCRIPT.py …``."""

from __future__ import annotations

import ctypes
import runpy
import sys


def main() -> int:
    library, gigabytes, *words = sys.argv[1:]
    gpu = ctypes.CDLL(library)  # before torch, which asks once what a GPU can do
    from torch_cuda import install

    install(gpu, float(gigabytes))
    if words[0].endswith(".py"):
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
        return 0
    from lmtrain.cli.main import main as command
    from lmtrain.engine.speed import machine

    machine._SMALLEST_ELSEWHERE, machine._LARGEST = 64, 128  # a GPU's products would take a CPU minutes
    return command(words)


if __name__ == "__main__":
    sys.exit(main())
