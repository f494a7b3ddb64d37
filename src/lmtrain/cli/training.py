"""``lmtrain clm``, ``mlm`` and ``sft``: train, then say where the model lies and what to do with it."""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from pathlib import Path

from lmtrain.cli.startup import heavy_imports
from lmtrain.config.options import Resolved
from lmtrain.config.values import user_path
from lmtrain.core.console import is_first_process
from lmtrain.core.errors import ExitCode, UserError
from lmtrain.core.files import read_json
from lmtrain.core.ranklog import listening
from lmtrain.core.stopping import Stop
from lmtrain.core.types import Tally
from lmtrain.data.ahead import Ahead

_MOST_TYPED = 80  # characters


def run(options: Resolved) -> int:
    each_node = bool(options.training.get("log_on_each_node"))
    with listening(on_each_node=each_node), Stop(minutes=options.run.max_minutes).listening() as stop:
        ahead = Ahead(options)  # tokenizes on the other core meanwhile
        with heavy_imports():
            from lmtrain.recipes.whole_training import whole_training

        outcome = whole_training(options, sys.argv[1:], made_ahead=ahead.made, stop=stop)
    if is_first_process() and not outcome.was_finished and options.do_train:
        print(f"{outcome.folder}")
        if outcome.folder is not None:
            folder, example = shlex.quote(str(outcome.folder)), _example(options, outcome.folder)
            print(f"try it: lmtrain generate --model_name_or_path {folder} {example}", file=sys.stderr)
            print(f"see it: lmtrain report {folder}", file=sys.stderr)
    return ExitCode.UPLOAD_FAILED if outcome.uploaded is False else ExitCode.OK


def _example(options: Resolved, folder: Path) -> str:
    """A prompt to type."""
    if options.command == "clm":
        return "'Once upon a time'"
    if options.command == "sft":
        return _context(options) or "'a prompt such as it was trained on'"
    mask: object = None
    with suppress(OSError, ValueError):
        mask = read_json(folder / "tokenizer_config.json").get("mask_token")
    return f"'Once upon a {mask if isinstance(mask, str) else '[MASK]'}'"


def _context(options: Resolved) -> str | None:
    """The first that was learned from, where it is text that one would type; of a chat a message."""
    from lmtrain.data.pairs import pair_sources_of
    from lmtrain.data.sources.pairs import PairSource

    with suppress(OSError, ValueError, UserError, StopIteration):
        files = options.data.train_file
        if files and all(user_path(name).is_file() for name in files):
            source = pair_sources_of(options.data, options.pairs)["train"][0]
            if isinstance(source, PairSource) and source.form == "chat":
                return "--chat 'Who are you?'"
            if isinstance(source, PairSource) and source.form == "text":
                context = next(source.pieces(Tally())).text
                return shlex.quote(context) if context.isprintable() and 0 < len(context) <= _MOST_TYPED else None
    return None
