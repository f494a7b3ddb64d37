"""The options of a command from the keyword arguments of a Python call.

Names, values, bounds and messages are those of the command line; nothing here imports torch or transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from os import PathLike, fspath
from typing import Any

from lmtrain.config.flags import flag_table
from lmtrain.config.load import Gathered, Setting, check_understood, gather, read_settings, resolve
from lmtrain.core.errors import Problems, UserError


@dataclass(frozen=True)
class Called:
    """A command's ``options``, lines worth saying about how they were understood, variables to set for it, and the
    ``words`` that would have said the same on a command line."""

    options: Any
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()


def from_keywords(command: str, given: Mapping[str, Any]) -> Called:
    """The options of ``lmtrain COMMAND``; ``config`` names a file of more, which are weaker.

    Values are as a JSON file has them; paths may be :class:`~pathlib.Path`, sequences tuples, and None leaves an
    option at its default. Raises :class:`UserError` with every problem.
    """
    values = {name: _plain(value) for name, value in given.items() if value is not None}
    problems = Problems()
    sources: list[Gathered] = []
    config = values.pop("config", None)
    if config is not None:
        sources.append(gather(command, read_settings(str(config), label="--config"), problems))
    settings = [Setting(name, f"--{name}", value=value) for name, value in values.items()]
    sources.append(gather(command, settings, problems))
    options = resolve(command, sources)
    check_understood(options, sources, problems)
    problems.raise_if_any()
    return Called(
        options,
        tuple(note for source in sources for note in source.notes),
        {name: value for source in sources for name, value in source.environment.items()},
        tuple(_words(command, values if config is None else {"config": config, **values})),
    )


def _plain(value: Any) -> Any:
    """A value as a JSON file would have it."""
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Integral | Real):  # numpy's scalars
        return int(value) if isinstance(value, Integral) else float(value)
    raise UserError(
        f"{value!r} is no option's value: options are words, numbers, paths, lists and dictionaries of them"
    )


def _words(command: str, values: Mapping[str, Any]) -> list[str]:
    flags = flag_table(command).flags
    words = [command]
    for name, value in values.items():
        if isinstance(value, bool) and name in flags and flags[name].is_switch:
            words.append(f"--{name}" if value else f"--no_{name}")
        elif isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        else:
            words += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return words
