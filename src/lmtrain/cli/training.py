"""What ``lmtrain clm``, ``mlm`` and ``sft`` share: train, then say where the model lies and what to do with it."""

from __future__ import annotations

import sys

from lmtrain.config.options import Resolved
from lmtrain.core.console import is_first_process
from lmtrain.core.errors import ExitCode
from lmtrain.core.ranklog import listening
from lmtrain.core.startup import heavy_imports
from lmtrain.core.stopping import Stop
from lmtrain.data.ahead import Ahead


def run(options: Resolved) -> int:
    each_node = bool(options.training.get("log_on_each_node"))
    with listening(on_each_node=each_node), Stop(minutes=options.run.max_minutes).listening() as stop:
        ahead = Ahead(options)  # tokenizes on the other core meanwhile
        with heavy_imports():
            from lmtrain.models.quiet import quiet_for_commands
            from lmtrain.recipes.training import whole_training

        quiet_for_commands()
        outcome = whole_training(options, sys.argv[1:], made_ahead=ahead.made, stop=stop)
    if is_first_process() and not outcome.was_finished and options.do_train:
        example = {"clm": "'Once upon a time'", "mlm": "'a text with a mask token'"}.get(options.command, "'a context'")
        print(f"{outcome.folder}")
        print(f"try it: lmtrain generate --model_name_or_path {outcome.folder} {example}", file=sys.stderr)
    return ExitCode.UPLOAD_FAILED if outcome.uploaded is False else ExitCode.OK
