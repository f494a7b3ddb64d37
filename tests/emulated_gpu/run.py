"""``lmtrain``, or a script, with an emulated GPU of so much memory: ``run.py GIGABYTES clm …`` or ``… SCRIPT.py …``."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> int:
    sys.path.append(str(Path(__file__).parents[1]))
    from emulated_gpu.torch_cuda import set_memory

    gigabytes, *words = sys.argv[1:]
    set_memory(float(gigabytes))
    if words[0].endswith(".py"):
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
        return 0
    from lmtrain.cli.main import main as command
    from lmtrain.engine.speed import machine

    machine._SMALLEST_ELSEWHERE, machine._LARGEST = 64, 128  # a GPU's products would take a CPU minutes
    sys.argv = ["lmtrain", *words]
    return command(words)


if __name__ == "__main__":
    sys.exit(main())
