"""``lmtrain nlg e2e|webnlg|dart``: from a corpus' files to the scores of a model adapted to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lmtrain.cli.startup import heavy_imports
from lmtrain.config.values import user_path
from lmtrain.core.console import is_first_process
from lmtrain.core.errors import ExitCode
from lmtrain.core.files import read_json
from lmtrain.core.stopping import Stop

if TYPE_CHECKING:
    from lmtrain.config.commands.nlg import NlgOptions


def run(options: NlgOptions) -> int:
    with Stop().listening() as stop:
        with heavy_imports():
            from lmtrain.engine.distributed.processes import to_the_end
            from lmtrain.recipes.data_to_text.run import run_task

        to_the_end(lambda: run_task(options, stop=stop))
    folder = user_path(str(options.output_dir))
    if is_first_process():
        if options.json:
            print(json.dumps(read_json(folder / "scores.json")))
        else:
            print((folder / "table.txt").read_text(encoding="utf-8"), end="")
    return ExitCode.OK
