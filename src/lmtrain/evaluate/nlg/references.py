"""Predictions and references as the official scorers' files hold them.

- E2E (measure_scores.py): one prediction a line; references one a line, a blank line between inputs. A file of
  references without a blank line has one for each input. Lines are stripped. Beyond the original, a blank line behind
  the references of a single input is one too: there is none to stand between.
- WebNLG, DART (GenerationEval): one prediction a line; one file for each rank of references, line by line, with an
  empty line where an input has fewer. Such a line counts as an empty reference there, and so it does here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from lmtrain.config.values import user_path
from lmtrain.core.console import counted
from lmtrain.core.errors import UserError

_IDS: Final = re.compile(r'\s*\{\s*"id"\s*:\s*\d+\s*,\s*"predict"\s*:\s*\[')


def read_predictions(task: str, name: str, *, flag: str = "--predictions") -> list[str]:
    """The predictions of a file; :class:`UserError` when it cannot be read, is empty or holds token ids."""
    predictions = _lines(task, user_path(name), flag)
    if not predictions:
        raise UserError(f"{name} is empty: there is nothing to score", flag=flag)
    if _IDS.match(predictions[0]):
        raise UserError(
            f"{name} holds token ids of lmtrain nlg decode; this makes texts of them: lmtrain nlg text {task} "
            f"--predictions {name} --records test.jsonl --tokenizer_name MODEL --output_dir texts",
            flag=flag,
        )
    return predictions


def read_references(task: str, names: list[str], count: int, predictions: str) -> list[list[str]]:
    """The references of ``count`` inputs; ``predictions`` names the file they must fit, for the error."""
    found = _read_e2e(names, count) if task == "e2e" else _read_ranks(task, names)
    if len(found) != count:
        raise UserError(
            f"{predictions} has {counted(count, 'prediction')}, {' '.join(names)} has references for "
            f"{counted(len(found), 'input')}; both files have to be of the same inputs in the same order",
            flag="--references",
        )
    return found


def _read_e2e(names: list[str], count: int) -> list[list[str]]:
    if len(names) != 1:
        raise UserError("E2E has its references in one file, a blank line between inputs", flag="--references")
    path = user_path(names[0])
    if path.suffix.lower() in (".csv", ".tsv"):
        raise UserError(f"{path}: tables are not read; write one reference a line, a blank line between inputs",
                        flag="--references")  # fmt: skip
    lines = _lines("e2e", path, "--references")
    ended = lines[-1:] == [""]
    while lines and not lines[-1]:
        lines.pop()
    groups: list[list[str]] = [[]]
    for number, line in enumerate(lines, start=1):
        if line:
            groups[-1].append(line)
        elif groups[-1]:
            groups.append([])
        else:
            raise UserError(f"{path}, line {number}: an input without references (a second blank line); leave one "
                            "between inputs", flag="--references")  # fmt: skip
    if groups == [[]]:
        raise UserError(f"{path} is empty: there are no references", flag="--references")
    if len(groups) > 1 or (count == 1 and ended):
        return groups
    return [[line] for line in groups[0]]


def _read_ranks(task: str, names: list[str]) -> list[list[str]]:
    paths = [path for name in names for path in _ranks(name)]
    files = [_lines(task, path, "--references") for path in paths]
    for path, lines in zip(paths, files, strict=True):
        if len(lines) != len(files[0]):
            raise UserError(f"{paths[0]} has {len(files[0]):,} lines and {path} has {len(lines):,}: each file of "
                            "references has a line for every input", flag="--references")  # fmt: skip
    references = [list(texts) for texts in zip(*files, strict=True)]
    for number, texts in enumerate(references, start=1):
        if not any(text.strip() for text in texts):
            raise UserError(f"{paths[0]}, line {number}: an input without references", flag="--references")
    return references


def _ranks(name: str) -> list[Path]:
    """The files of one name: itself, or ``name0``, ``name1``, ... as GenerationEval counts them."""
    path = user_path(name)
    if path.is_dir():
        path = path / "reference"
    if path.exists() or not Path(f"{path}0").exists():
        return [path]
    found: list[Path] = []
    while (each := Path(f"{path}{len(found)}")).exists():
        found.append(each)
    return found


def _lines(task: str, path: Path, flag: str) -> list[str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}", flag=flag) from error
    if data.startswith(b"\xef\xbb\xbf"):
        raise UserError(f"{path} begins with a byte-order mark, which the official scorers take for a part of the "
                        "first word; save it without", flag=flag)  # fmt: skip
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (at byte {error.start})", flag=flag) from error
    if task == "e2e":
        return [line.strip() for line in text.splitlines()]  # as codecs' reader cuts: at every Unicode line break
    lines = text.removesuffix("\n").split("\n") if text else []
    for number, line in enumerate(lines, start=1):
        if len(line.removesuffix("\r").splitlines()) > 1:
            raise UserError(f"{path}, line {number}: holds a line break other than the usual one", flag=flag)
    return [line.removesuffix("\r") for line in lines]
