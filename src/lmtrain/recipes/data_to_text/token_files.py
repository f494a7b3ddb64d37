"""The files between the stages of data-to-text, as microsoft/LoRA's scripts read and write them: JSONL of token ids.

Inputs are ``{"context": [...], "completion": [...]}``, one a line; predictions ``{"id": 0, "predict": [...]}``, where
``id`` is the number of the input, counted from 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from lmtrain.core.errors import Problems, UserError
from lmtrain.core.files import atomic_file
from lmtrain.generate.prompt_files import field_of

_T = TypeVar("_T")


def read_contexts(path: Path, flag: str) -> list[list[int]]:
    """The ``context`` of each line of a JSONL file of token ids; blank lines are passed over and not counted.

    Raises :class:`UserError` about ``flag`` that names the first bad lines and counts the others.
    """
    return _each_line(path, flag, _context, "input")


def _each_line(path: Path, flag: str, read: Callable[[bytes], _T], what: str) -> list[_T]:
    found: list[_T] = []
    bad: list[str] = []
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.isspace():
                    try:
                        found.append(read(line))
                    except ValueError as error:
                        bad.append(f"{path}:{number}: {error}")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}", flag=flag) from error
    problems = Problems()
    problems.add_some(bad, "line", flag=flag)
    problems.raise_if_any()
    if not found:
        raise UserError(f"{path} holds no {what}", flag=flag)
    return found


def _context(line: bytes) -> list[int]:
    context = field_of(line, "context")
    if isinstance(context, str):
        raise ValueError('its "context" is text; token ids are wanted, so encode it first')
    if not isinstance(context, list) or any(type(token) is not int for token in context):
        raise ValueError('its "context" is no list of token ids')
    if not context:
        raise ValueError('its "context" is empty: there is nothing to go on from')
    return context


def write_predictions(path: Path, ids: Sequence[int], results: Sequence[Sequence[int]], width: int = 0) -> None:
    """One line for each of ``results``; shorter ones are filled up to ``width`` with zeros, as the original does."""
    with atomic_file(path) as stream:
        for number, result in zip(ids, results, strict=True):
            padded = [*result, *[0] * (width - len(result))]
            stream.write(json.dumps({"id": number, "predict": padded}).encode() + b"\n")


def read_predictions(path: Path, flag: str) -> dict[int, list[int]]:
    """The ids for each input by its number; of several lines about one input the last counts, as in the original.

    Raises :class:`UserError` about ``flag`` that names the first bad lines and counts the others.
    """
    return dict(_each_line(path, flag, _prediction, "prediction"))


def _prediction(line: bytes) -> tuple[int, list[int]]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    number, ids = (record.get("id"), record.get("predict")) if isinstance(record, dict) else (None, None)
    if type(number) is not int or not isinstance(ids, list) or any(type(token) is not int for token in ids):
        raise ValueError('not a line of lmtrain nlg decode, {"id": number, "predict": [ids]}')
    return number, ids
