"""Options of the data that contradict each other or leave something out."""

from __future__ import annotations

import os
from pathlib import Path

from lmtrain.config.commands.filter import FilterOptions
from lmtrain.config.mix import Mix
from lmtrain.config.options import (
    DataOptions,
    PrepareOptions,
    Resolved,
    TextOptions,
)
from lmtrain.config.shard import shard_of
from lmtrain.config.values import user_path
from lmtrain.core.addresses import is_address
from lmtrain.core.errors import Problems, UserError
from lmtrain.core.missing import no_such

_DATA_FILES = {
    "train_file": "--train_file",
    "validation_file": "--validation_file",
    "test_file": "--test_file",
}


def check_data(data: TextOptions, problems: Problems) -> None:
    """What holds for every command that reads text."""
    named = [name for name in _DATA_FILES if getattr(data, name, None)]
    flag_of = {**_DATA_FILES, "train_file": _text_flag(data)}
    if data.dataset_name and named:
        flags = " and ".join(flag_of[name] for name in named)
        problems.add(f"comes with its own splits; give either it or {flags}", flag="--dataset_name")
    if data.dataset_config_name and not data.dataset_name:
        problems.add("chooses a configuration of --dataset_name, which is missing", flag="--dataset_config_name")
    if data.dataset_name and data.dataset_name.lower().endswith((".py", ".txt", ".csv", ".json", ".jsonl")):
        problems.add(f"{data.dataset_name} is a file; give files with {_text_flag(data)}", flag="--dataset_name")
    paths = {name: getattr(data, name) for name in named}
    if isinstance(data, DataOptions | FilterOptions) and data.mix:
        paths["train_file"] = []
        with problems.collect():
            paths["train_file"] = _mixed_files(data)
    for name, found in paths.items():
        for path in found:
            _exists(path, flag_of[name], problems)
    if isinstance(data, DataOptions):
        check_linebreaks(data, problems)
        stdin = [name for name in named if "-" in getattr(data, name)]
        if len(stdin) > 1:
            problems.add(
                f"standard input is read once, and {_DATA_FILES[stdin[0]]} reads it",
                flag=_DATA_FILES[stdin[1]],
            )


def check_linebreaks(data: DataOptions, problems: Problems) -> None:
    """``--keep_linebreaks`` is about lines that are documents; a text that is one keeps all of its own."""
    lines = data.documents == "lines" or data.compat or getattr(data, "line_by_line", False)
    if data.keep_linebreaks is False and not lines:
        problems.add(
            "a text file is one document here, with all of its line breaks; --documents lines makes each line one, "
            "without its break (so does --compat)",
            flag="--keep_linebreaks",
        )


def _mixed_files(data: DataOptions | FilterOptions) -> list[str]:
    """The training files of a mix, without their names; none while something about it is wrong."""
    if data.dataset_name:
        raise UserError("mixes files; save the data sets as files first, and name these", flag="--mix")
    mix = Mix.of(data.mix)
    if mix is None:
        return []
    return [path for paths in mix.paths(data.train_file, flag=_text_flag(data)).values() for path in paths]


def _text_flag(data: TextOptions) -> str:
    """What the text is given with, as the docs of the command have it."""
    return "--source" if isinstance(data, FilterOptions) else "--train_file"


def _exists(path: str, flag: str, problems: Problems) -> None:
    """A file that is not there."""
    if path == "-" or is_address(path) or any(sign in path for sign in "*?["):
        return
    if not path.strip():
        problems.add("an empty name is no file", flag=flag)
        return
    file = user_path(path)
    try:
        if file.exists():
            return
    except (OSError, ValueError):
        return  # unreadable folders and impossible names are the reader's to report
    problems.add(no_such(path, file), flag=flag)


def check_apart(data: TextOptions, output: str | None, flag: str, problems: Problems) -> None:
    """A result inside a folder of text would be text itself at the next start."""
    if not output or is_address(output):
        return
    place = _really(output)
    for name in _DATA_FILES:
        for path in getattr(data, name, None) or []:
            typed = path.partition("=")[2] if getattr(data, "mix", None) else path
            if typed in ("", "-") or is_address(typed):
                continue
            folder = _really(typed)
            if folder in (place, *place.parents) and os.path.isdir(folder):  # noqa: PTH112 -- False of impossible names
                source = _text_flag(data) if name == "train_file" else _DATA_FILES[name]
                problems.add(
                    f"{output} lies inside {path}, all of which is text ({source}), so the next start would read what "
                    "this one writes; name a folder outside",
                    flag=flag,
                )
                return


def _really(path: str) -> Path:
    return Path(os.path.realpath(user_path(path)))


def check_has_text(data: TextOptions, problems: Problems) -> None:
    if not (data.train_file or data.dataset_name):
        flag = _text_flag(data)
        problems.add(f"no text; name a file or a folder: {flag} TEXT", flag=flag)


def check_splits(options: Resolved, problems: Problems) -> None:
    """Is there data for what is asked?"""
    data, asked = options.data, options.training
    if not (options.can_train or options.can_evaluate):
        problems.add("no text; name a file or a folder: --train_file TEXT", flag="--train_file")
        return
    if asked.get("do_train") and not options.can_train:
        problems.add("nothing to train on; name a text: --train_file TEXT", flag="--do_train")
    evaluates = "--do_eval" if asked.get("do_eval") else "--eval_strategy"
    if options.do_eval and not options.can_evaluate:
        problems.add(
            "nothing to evaluate on: no --validation_file, and --validation_split_percentage is 0",
            flag=evaluates,
        )
    if data.validation_split_percentage == 100 and options.do_train and not data.validation_file:
        problems.add("100 leaves nothing to train on", flag="--validation_split_percentage")


def check_chunking(data: DataOptions, problems: Problems) -> None:
    if data.chunking != "documents":
        return
    if data.compat:
        problems.add(f"{data.compat} joins documents; give only one of --chunking and --compat", flag="--chunking")
    if data.isolate_documents:
        problems.add("each window is of one document already; leave it out", flag="--isolate_documents")
    if not data.drop_remainder:
        problems.add("--chunking documents leaves out what fills no window; give one of them", flag="--drop_remainder")


def _check_shards(options: PrepareOptions, problems: Problems) -> None:
    if options.shard is None and options.merge is None:
        return
    if options.shard is not None:
        with problems.collect():
            shard_of(options.shard)
    if options.shard is not None and is_address(options.output_dir or ""):
        problems.add("parts are made in a folder that all machines see; name the address with --merge", flag="--shard")
    if options.shard is not None and options.merge is not None:
        problems.add("puts together what --shard makes; give one of them", flag="--merge")
    for name in ("train_file", "validation_file"):
        if "-" in getattr(options, name):
            problems.add("standard input is read by one command; write it to a file first", flag=_DATA_FILES[name])


def check_prepare(options: PrepareOptions, problems: Problems) -> None:
    if options.list and options.clean:
        problems.add("shows what --clean deletes; give one of them", flag="--list")
    if options.list or options.clean:
        return
    check_data(options, problems)
    check_apart(options, options.output_dir, "--output_dir", problems)
    _check_shards(options, problems)
    if not (options.train_file or options.validation_file or options.dataset_name):
        problems.add("no text; name a file or a folder: --train_file TEXT", flag="--train_file")
    if not (options.tokenizer_name or options.model_name_or_path):
        problems.add("name a tokenizer: a folder, a tokenizer.json or a hub name", flag="--tokenizer_name")
    if options.objective == "clm":
        wrong = {"--max_seq_length": options.max_seq_length, "--line_by_line": options.line_by_line}
        hint = "belongs to --objective mlm"
    else:
        wrong, hint = {"--block_size": options.block_size}, "masked training calls this --max_seq_length"
    for flag, value in wrong.items():
        if value:
            problems.add(hint, flag=flag)
    check_chunking(options, problems)
    if options.chunking == "documents" and options.objective == "mlm":
        problems.add("belongs to --objective clm", flag="--chunking")
    if options.pad_to_max_length and not options.line_by_line:
        problems.add("only lines can be padded; blocks are full. Add --line_by_line", flag="--pad_to_max_length")
    if options.compat and options.compat != f"run_{options.objective}":
        problems.add(f"{options.compat} prepares for --objective {options.compat[4:]}", flag="--compat")
