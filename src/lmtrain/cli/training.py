"""What ``lmtrain clm``, ``mlm`` and ``sft`` share: run, then say where the model lies and what to do with it."""

from __future__ import annotations

import sys

from lmtrain.config.options import Resolved
from lmtrain.core.console import is_first_process
from lmtrain.core.errors import ExitCode
from lmtrain.core.startup import heavy_imports
from lmtrain.core.stopping import Stop
from lmtrain.data.ahead import Ahead


def run(options: Resolved) -> int:
    with Stop(minutes=options.run.max_minutes).listening() as stop:
        ahead = Ahead(options)  # tokenizes on the other core meanwhile
        with heavy_imports():
            from lmtrain.engine.assembly import train
            from lmtrain.engine.processes import to_the_end
            from lmtrain.models.quiet import quiet_for_commands

        quiet_for_commands()
        outcome = to_the_end(lambda: train(options, sys.argv[1:], made_ahead=ahead.made, stop=stop))
    if is_first_process() and not outcome.was_finished and options.do_train:
        example = {"clm": "'Once upon a time'", "mlm": "'a text with a mask token'"}.get(options.command, "'a context'")
        print(f"{outcome.folder}")
        print(f"try it: lmtrain generate --model_name_or_path {outcome.folder} {example}", file=sys.stderr)
    return ExitCode.OK
