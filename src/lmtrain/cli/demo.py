"""``lmtrain demo``: everything at once, in minutes."""

from __future__ import annotations

from lmtrain.cli.startup import heavy_imports
from lmtrain.config.commands.demo import DemoOptions
from lmtrain.core.errors import ExitCode
from lmtrain.core.stopping import Stop


def run(options: DemoOptions) -> int:
    with Stop().listening() as stop:
        with heavy_imports():
            from lmtrain.recipes.demo import run_demo

        run_demo(options, stop=stop)
    return ExitCode.OK
