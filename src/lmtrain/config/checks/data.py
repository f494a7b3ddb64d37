"""Options of the data that contradict each other or leave something out."""

from __future__ import annotations

import os
from pathlib import Path

from lmtrain.config.groups import DataOptions, TextOptions
from lmtrain.config.mix import Mix
from lmtrain.config.values import user_path
from lmtrain.core.addresses import is_address
from lmtrain.core.errors import Problems, UserError
from lmtrain.core.missing import no_such

_DATA_FILES = {"train_file": "--train_file", "validation_file": "--validation_file", "test_file": "--test_file"}


def check_data(data: TextOptions, problems: Problems) -> None:
    """What holds for every command that reads text."""
    named = [name for name in _DATA_FILES if getattr(data, name, None)]
    flag_of = {**_DATA_FILES, "train_file": data.text_flag}
    if data.dataset_name and named:
        flags = " and ".join(flag_of[name] for name in named)
        problems.add(f"comes with its own splits; give either it or {flags}", flag="--dataset_name")
    if data.dataset_config_name and not data.dataset_name:
        problems.add("chooses a configuration of --dataset_name, which is missing", flag="--dataset_config_name")
    if data.dataset_name and data.dataset_name.lower().endswith((".py", ".txt", ".csv", ".json", ".jsonl")):
        problems.add(f"{data.dataset_name} is a file; give files with {data.text_flag}", flag="--dataset_name")
    paths = {name: getattr(data, name) for name in named}
    if shares := getattr(data, "mix", None):
        paths["train_file"] = []
        with problems.collect():
            paths["train_file"] = _mixed_files(data, shares)
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


def _mixed_files(data: TextOptions, shares: list[str]) -> list[str]:
    """The training files of a mix, without their names."""
    if data.dataset_name:
        raise UserError("mixes files; save the data sets as files first, and name these", flag="--mix")
    mix = Mix.of(shares)
    assert mix is not None
    return [path for paths in mix.paths(data.train_file, flag=data.text_flag).values() for path in paths]


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
                source = data.text_flag if name == "train_file" else _DATA_FILES[name]
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
        problems.add(f"no text; name a file or a folder: {data.text_flag} TEXT", flag=data.text_flag)


def check_chunking(data: DataOptions, problems: Problems) -> None:
    if data.chunking != "documents":
        return
    if data.compat:
        problems.add(f"{data.compat} joins documents; give only one of --chunking and --compat", flag="--chunking")
    if data.isolate_documents:
        problems.add("each window is of one document already; leave it out", flag="--isolate_documents")
    if not data.drop_remainder:
        problems.add("--chunking documents leaves out what fills no window; give one of them", flag="--drop_remainder")
