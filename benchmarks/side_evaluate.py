"""Our side of the evaluation benchmark: ``lmtrain evaluate``, with its peak memory beside its scores.

python benchmarks/side_evaluate.py OUT WORDS…
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

from lmtrain.cli.main import main
from lmtrain.cli.startup import heavy_imports

with heavy_imports():  # the clock needs torch, and a command has it imported like this
    from clock import peak_bytes, write

if __name__ == "__main__":
    out, *words = sys.argv[1:]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(["evaluate", *words, "--json"])
    if code == 0:
        scores = json.loads(said.getvalue())["validation"]
        write(Path(out), {"seconds": scores["eval_runtime"], "loss": scores["eval_loss"], "peak_bytes": peak_bytes()})
    sys.exit(code)
