"""What ``lmtrain clm``, ``mlm`` and ``sft`` share: train, then say where the model lies and what to do with it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from lmtrain.config.options import Resolved
from lmtrain.core.console import is_first_process
from lmtrain.core.errors import ExitCode
from lmtrain.core.files import read_json
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
        print(f"{outcome.folder}")
        if outcome.folder is not None:
            example = _example(options.command, outcome.folder)
            print(f"try it: lmtrain generate --model_name_or_path {outcome.folder} {example}", file=sys.stderr)
            print(f"see it: lmtrain report {outcome.folder}", file=sys.stderr)
    return ExitCode.UPLOAD_FAILED if outcome.uploaded is False else ExitCode.OK


def _example(command: str, folder: Path) -> str:
    """A prompt to type."""
    if command != "mlm":
        return "'Once upon a time'" if command == "clm" else "'a context'"
    mask: object = None
    with suppress(OSError, ValueError):
        mask = read_json(folder / "tokenizer_config.json").get("mask_token")
    return f"'Once upon a {mask if isinstance(mask, str) else '[MASK]'}'"
