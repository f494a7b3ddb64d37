"""``lmtrain nlg train``: adapt a model to pairs with the published settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmtrain.core.console import is_first_process
from lmtrain.core.errors import ExitCode
from lmtrain.core.startup import heavy_imports

if TYPE_CHECKING:
    from lmtrain.config.nlg import NlgTrainOptions


def run(options: NlgTrainOptions) -> int:
    with heavy_imports():
        from lmtrain.engine.processes import leave_together
        from lmtrain.models.quiet import quiet_for_commands
        from lmtrain.recipes.data_to_text.run import run_training

    quiet_for_commands()
    outcome = run_training(options)
    leave_together()
    if is_first_process():
        print(outcome.folder)
    return ExitCode.OK
