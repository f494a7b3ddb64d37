"""All that is wrong with a command, as it stands in a terminal or in a file."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

_NARROW = 40  # columns that are left for the text beside the flags; with fewer it stands below them


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to change before a command can run.

    ``flag`` is the option it is about (``--train_file``) or None; ``text`` says what was seen and what to
    type instead.
    """

    text: str
    flag: str | None = None


def problem_block(command: str, problems: Sequence[Problem], before: str = "run", *, columns: int | None = None) -> str:
    """All problems under one heading, the flags in a column of their own; they are in the way of what ``before`` says.

    ::

        lmtrain clm: 2 things to change before this can run
          --lerning_rate   no such option; did you mean --learning_rate?
          --block_size     4096 is longer than the 1024 positions of gpt2;
                           use at most --block_size 1024

    Lines are wrapped to ``columns``, those of a terminal; None leaves them alone, as in a file, where they may be
    searched.
    """
    count = f"{len(problems)} things" if len(problems) != 1 else "1 thing"
    blocks = [f"{f'lmtrain {command}'.strip()}: {count} to change before this can {before}"]
    column = max((len(p.flag) for p in problems if p.flag), default=0)
    indent = column + 5 if column else 2
    below = columns is not None and column > 0 and columns - indent < _NARROW
    for problem in problems:
        flag = f"  {problem.flag or ''}"
        if below:
            blocks += [flag] if problem.flag else []
            blocks.append(_indented(problem.text, 6 if problem.flag else 2, columns))
        else:
            blocks.append(flag.ljust(indent) + _indented(problem.text, indent, columns).lstrip())
    return "\n".join(blocks)


def columns_of_the_terminal() -> int | None:
    """Of the terminal that errors go to; None where that is none, or does not know."""
    return (os.get_terminal_size(sys.stderr.fileno()).columns or None) if sys.stderr.isatty() else None


def _indented(text: str, indent: int, columns: int | None) -> str:
    lines = text.split("\n")
    if columns is not None:
        width = max(20, columns - indent - 1)
        lines = [
            part
            for line in lines
            for part in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
        ]
    return textwrap.indent("\n".join(lines), " " * indent)
