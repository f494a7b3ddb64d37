"""Messages of the stages below, in the flags of the command that was typed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lmtrain.core.errors import Problem, UserError


@contextmanager
def in_flags(names: Mapping[str, str]) -> Iterator[None]:
    """A :class:`UserError` raised inside goes on as it is, but speaks of ``names[flag]`` where it spoke of ``flag``.

    >>> with in_flags({"--train_file": "--train"}):
    ...     raise UserError("no such file: a.txt", flag="--train_file")
    Traceback (most recent call last):
    lmtrain.core.errors.UserError: --train: no such file: a.txt
    """
    known = re.compile("|".join(rf"{re.escape(name)}\b" for name in names))

    def renamed(text: str) -> str:
        return known.sub(lambda match: names[match[0]], text)

    try:
        yield
    except UserError as error:
        problems = tuple(Problem(renamed(p.text), p.flag and renamed(p.flag)) for p in error.problems)
        error.problems, error.args = problems, UserError(problems=problems).args
        raise
