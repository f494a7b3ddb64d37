"""``lmtrain gpt2-ft``: train GPT-2 on encoded pairs as microsoft/LoRA's gpt2_ft.py does."""

from __future__ import annotations

import sys

from lmtrain.config.commands.gpt2_ft import Gpt2FtOptions, check_gpt2_ft
from lmtrain.core.errors import ExitCode
from lmtrain.core.startup import heavy_imports
from lmtrain.core.stopping import Stop


def run(options: Gpt2FtOptions) -> int:
    check_gpt2_ft(options)
    with Stop().listening() as stop:
        with heavy_imports():
            from lmtrain.models.quiet import quiet_for_commands
            from lmtrain.recipes.gpt2_ft.run import run_gpt2_ft

        quiet_for_commands()
        run_gpt2_ft(options, sys.argv[1:], stop=stop)
    return ExitCode.OK
