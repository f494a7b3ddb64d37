"""Our side of a benchmark: an ordinary ``lmtrain`` command, timed.

python benchmarks/side_ours.py OUT WARM STEPS SECONDS -- clm --train_file …
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lmtrain.cli.main import main
from lmtrain.cli.startup import heavy_imports
from lmtrain.core.console import is_first_process

with heavy_imports():  # the clock needs torch, and a command has it imported like this
    from clock import watch, write

if __name__ == "__main__":
    out, warm, steps, seconds, _, *command = sys.argv[1:]
    clock = watch(Path(out), int(warm), int(steps), float(seconds))
    code = main(command)
    results = Path(command[command.index("--output_dir") + 1]) / "train_results.json"
    figures = json.loads(results.read_text()) if results.is_file() else {}
    if is_first_process():
        write(Path(out), clock.figures | {name: figures[name] for name in ("train_mfu",) if name in figures})
    sys.exit(code)
