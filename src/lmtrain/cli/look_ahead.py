"""When a command line is wrong already: what else is wrong, as far as the heads of files show it in milliseconds.

A mistyped flag, a column that has to be named and a block that is too long come in one answer instead of three. A
command line without mistakes is not looked at here: the run opens the same files and checks everything.
"""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

from lmtrain.config.options import Resolved
from lmtrain.config.values import user_path
from lmtrain.core.errors import Problems


def look_ahead(options: Any, problems: Problems) -> None:
    """Add what the files named in ``options`` show; neither torch nor transformers is imported."""
    if not isinstance(options, Resolved):
        return
    already = {problem.flag for problem in problems}
    if options.output_dir and os.path.isfile(user_path(options.output_dir)):  # noqa: PTH113 -- False of impossible names
        problems.add(f"{options.output_dir} is a file; give the name of a folder", flag="--output_dir")
    if not options.data.dataset_name and not already & {"--train_file", "--validation_file", "--test_file"}:
        from lmtrain.data.named_text import sources_of
        from lmtrain.data.pairs import pair_sources_of

        files = (*options.data.train_file, *options.data.validation_file, *options.data.test_file)
        if "-" not in files and not any("://" in name for name in files):  # nothing is asked of a network
            with problems.collect():
                if options.command == "sft":
                    pair_sources_of(options.data, options.pairs)
                else:
                    sources_of(options.data)
    for flag, name in (
        ("--model_name_or_path", options.model.model_name_or_path),
        ("--tokenizer_name", options.model.tokenizer_name),
    ):
        if name and flag not in already:
            _folder(name, options, flag, problems)
    _length(options, problems)


def _folder(name: str, options: Resolved, flag: str, problems: Problems) -> None:
    """Say that there is none of that name, where it cannot be meant as one of the hub: that would be asked."""
    from lmtrain.models.loading.hub import locate

    first, slash, rest = name.partition("/")
    if name.startswith((".", "/", "~")) or "/" in rest or (slash and os.path.isdir(first)):  # noqa: PTH112
        with problems.collect():
            locate(name, options.model, flag)


def _length(options: Resolved, problems: Problems) -> None:
    from lmtrain.models.loading.configuration import require_positions

    name = "block_size" if options.command == "clm" else "max_seq_length"
    asked, model = getattr(options.data, name), options.model.model_name_or_path
    if asked is None or model is None:
        return
    try:
        raw = json.loads((user_path(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # a hub name, or a folder that the run itself will complain about
    if not isinstance(raw, dict):
        return
    config = SimpleNamespace(**raw)
    config.get_text_config = lambda: config
    if hasattr(config, "model_type"):
        with problems.collect():
            require_positions(asked, config, model, f"--{name}")
