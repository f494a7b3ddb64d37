"""What ``lmtrain clm``, ``mlm`` and ``sft`` share: run, upload if asked to, then say where the model lies
and what to do with it."""

from __future__ import annotations

import sys
from functools import partial

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
            from lmtrain.engine.assembly import train
            from lmtrain.engine.processes import to_the_end
            from lmtrain.engine.uploading import upload_run
            from lmtrain.models.quiet import quiet_for_commands
            from lmtrain.recipes.samples import sampling
            from lmtrain.rehearsal.rehearse import rehearse

        quiet_for_commands()
        look = sampling(options)
        run_it = partial(train, options, sys.argv[1:], made_ahead=ahead.made, stop=stop, rehearse=rehearse, look=look)
        outcome = to_the_end(run_it)
        code = ExitCode.OK
        if is_first_process() and options.do_train and outcome.folder is not None:
            code = upload_run(outcome.folder, options)
    if is_first_process() and not outcome.was_finished and options.do_train:
        example = {"clm": "'Once upon a time'", "mlm": "'a text with a mask token'"}.get(options.command, "'a context'")
        print(f"{outcome.folder}")
        print(f"try it: lmtrain generate --model_name_or_path {outcome.folder} {example}", file=sys.stderr)
    return code
