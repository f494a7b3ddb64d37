"""Imported before torch by the processes of the tests: products are made with the kernels that a command takes.

As a script, it runs another so: python as_commands_do.py SCRIPT WORDS…
"""

from __future__ import annotations

import runpy
import sys

from lmtrain.core.mkl import use_intel_kernels

use_intel_kernels()

if __name__ == "__main__":
    del sys.argv[0]
    sys.path[0] = sys.argv[0].rpartition("/")[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
