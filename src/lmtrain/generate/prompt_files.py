"""Prompts from files and standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lmtrain.config.values import user_path
from lmtrain.core.errors import Problems, UserError


def read_prompts(name: str, flag: str = "--prompts_file") -> list[str]:
    """One prompt a line; in a ``.jsonl`` file the field ``prompt`` of each line. ``-`` is standard input, as text.

    Blank lines are passed over. Raises :class:`UserError` about ``flag`` for a file that cannot be read or holds none.
    """
    path = user_path(name)
    try:
        text = read_stdin(flag) if name == "-" else path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}", flag=flag) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (at byte {error.start})", flag=flag) from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise UserError(f"{path} holds no prompt: every line is blank", flag=flag)
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return [line for _, line in lines]
    return _from_records(path, lines, flag)


def read_stdin(flag: str | None = None) -> str:
    """All of standard input."""
    try:
        return sys.stdin.read().removeprefix("\ufeff")  # which PowerShell puts before what it pipes
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not UTF-8 (at byte {error.start})", flag=flag) from error


def _from_records(path: Path, lines: list[tuple[int, str]], flag: str) -> list[str]:
    prompts: list[str] = []
    bad: list[str] = []
    for number, line in lines:
        try:
            prompts.append(_prompt(line))
        except ValueError as error:
            bad.append(f"{path}:{number}: {error}")
    problems = Problems()
    problems.add_some(bad, "line", flag=flag)
    problems.raise_if_any()
    return prompts


def field_of(line: str | bytes, name: str) -> Any:
    """A field of the JSON object in ``line``. Raises ``ValueError`` with what is wrong with it."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos + 1})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (at byte {error.start + 1} of the line)") from None
    except RecursionError:
        raise ValueError("JSON too deep to be read") from None
    if not isinstance(record, dict) or name not in record:
        raise ValueError(f'no record with a "{name}"')
    return record[name]


def _prompt(line: str) -> str:
    prompt = field_of(line, "prompt")
    if not isinstance(prompt, str):
        raise ValueError('its "prompt" is no text')
    return prompt
