"""``lmtrain nlg train``: adapt a model to pairs with the published settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmtrain.cli.startup import heavy_imports
from lmtrain.core.console import is_first_process
from lmtrain.core.errors import ExitCode
from lmtrain.core.stopping import Stop

if TYPE_CHECKING:
    from lmtrain.config.commands.nlg import NlgTrainOptions


def run(options: NlgTrainOptions) -> int:
    with Stop().listening() as stop:
        with heavy_imports():
            from lmtrain.engine.distributed.processes import to_the_end
            from lmtrain.recipes.data_to_text.run import run_training

        outcome = to_the_end(lambda: run_training(options, stop=stop))
    if is_first_process():
        print(outcome.folder)
    return ExitCode.OK
