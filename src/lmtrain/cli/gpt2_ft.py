"""``lmtrain gpt2-ft``: train GPT-2 on encoded pairs as microsoft/LoRA's gpt2_ft.py does."""

from __future__ import annotations

import sys

from lmtrain.cli.startup import heavy_imports
from lmtrain.config.commands.gpt2_ft import Gpt2FtOptions
from lmtrain.core.errors import ExitCode
from lmtrain.core.stopping import Stop


def run(options: Gpt2FtOptions) -> int:
    with Stop().listening() as stop:
        with heavy_imports():
            from lmtrain.recipes.gpt2_ft.run import run_gpt2_ft

        run_gpt2_ft(options, sys.argv[1:], stop=stop)
    return ExitCode.OK
