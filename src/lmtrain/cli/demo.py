"""``lmtrain demo``: everything at once, in minutes."""

from __future__ import annotations

from lmtrain.config.options import DemoOptions
from lmtrain.core.errors import ExitCode
from lmtrain.core.startup import heavy_imports
from lmtrain.core.stopping import Stop


def run(options: DemoOptions) -> int:
    with Stop().listening() as stop:
        with heavy_imports():
            from lmtrain.models.quiet import quiet_for_commands
            from lmtrain.recipes.demo import run_demo

        quiet_for_commands()
        run_demo(options, stop=stop)
    return ExitCode.OK
