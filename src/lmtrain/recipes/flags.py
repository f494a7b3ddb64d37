"""Messages of the stages below, in the flags of the command that was typed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from lmtrain.config.flags import flag_table
from lmtrain.core.console import Say
from lmtrain.core.errors import UserError
from lmtrain.core.problem_block import Problem
from lmtrain.engine.measuring import LONGER_OR_ANEW

_FLAG = re.compile(r"--[a-z][a-z_]+\b")
_WAYS = re.compile(r", or --(?:accept_changes to go on otherwise|extend to go on for longer)")


@contextmanager
def in_flags(names: Mapping[str, str], command: str | None = None, elsewhere: str = "sft") -> Iterator[None]:
    """A :class:`UserError` raised inside goes on as it is, but speaks of ``names[flag]`` where it spoke of ``flag``.

    Of flags that ``command`` does not have, it says that the command ``elsewhere`` has them; an error is not about one.

    >>> with in_flags({"--train_file": "--train"}):
    ...     raise UserError("no such file: a.txt", flag="--train_file")
    Traceback (most recent call last):
    lmtrain.core.errors.UserError: --train: no such file: a.txt
    """
    renamed = _translated(names, command, elsewhere)
    own = flag_table(command) if command else None

    def about(flag: str | None) -> str | None:
        flag = names.get(flag or "", flag)
        return flag if not own or not flag or not flag.startswith("--") or own.find(flag[2:]) else None

    try:
        yield
    except UserError as error:
        error.tell(Problem(renamed(p.text), about(p.flag)) for p in error.problems)
        raise


def saying(say: Say, names: Mapping[str, str], command: str, elsewhere: str = "sft") -> Say:
    """``say``, which hears everything as :func:`in_flags` has it."""
    renamed = _translated(names, command, elsewhere)
    return lambda topic, text: say(topic, renamed(text))


def as_a_part(say: Say) -> Say:
    """``say`` for a training inside another command, which cannot train it alone for longer, or anew."""
    return lambda topic, text: say(topic, text.replace(LONGER_OR_ANEW, ""))


def _translated(names: Mapping[str, str], command: str | None, elsewhere: str) -> Callable[[str], str]:
    known = re.compile("|".join(rf"{re.escape(name)}\b" for name in names))
    own, other = (flag_table(command), flag_table(elsewhere)) if command else (None, None)

    def renamed(text: str) -> str:
        text = known.sub(lambda match: names[match[0]], text)
        if own is None or other is None:
            return text
        text = _WAYS.sub(lambda match: match[0] if own.find(match[0].split()[2][2:]) else "", text)
        told = "\n".join(line for line in text.splitlines() if not line.startswith("    "))  # not what is listed
        foreign = [flag for flag in dict.fromkeys(_FLAG.findall(told)) if not own.find(flag[2:])]
        foreign = [flag for flag in foreign if other.find(flag[2:])]
        if not foreign:
            return text
        *first, last = foreign
        listed = f"{', '.join(first)} and {last} are options" if first else f"{last} is an option"
        return f"{text} ({listed} of lmtrain {elsewhere}, which trains on the same pairs)"

    return renamed
