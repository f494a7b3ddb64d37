"""What can go wrong, in words for the person who typed the command.

An error says what was seen, what that means and what to type instead. Problems are collected
(:class:`Problems`) and shown together, so that a user mends a command once and not five times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

from lmtrain.core.problem_block import Problem, problem_block

_SHOWN: Final = 5  # problems of one kind


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    OUR_FAULT = 1
    WRONG_INPUT = 2
    UPLOAD_FAILED = 69  # EX_UNAVAILABLE: the model lies complete in its folder; lmtrain push uploads it alone
    INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: run the same command again to go on
    NO_SAVE_SUCCEEDED = 76


class UserError(Exception):
    """Input that cannot be used: shown without a traceback, exit code 2."""

    exit_code = ExitCode.WRONG_INPUT
    heard: bool | None = None  # whether all processes of the run have it, and the first one says it; None: not asked

    def __init__(self, text: str = "", *, flag: str | None = None, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__()
        self.tell(problems or (Problem(text, flag),))

    def tell(self, problems: Iterable[Problem]) -> None:
        """Say ``problems`` in place of those that it has."""
        self.problems = tuple(problems)
        self.args = ("; ".join(f"{p.flag}: {p.text}" if p.flag else p.text for p in self.problems),)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in a notebook: the problems, and no way through our code that led to them."""
        return problem_block("", self.problems).split("\n")


class OwnResultWrong(Exception):  # noqa: N818 -- says what happened, as the others do
    """What lmtrain itself made is not what it should be, and was noticed: shown without a traceback, exit code 1."""

    exit_code = ExitCode.OUR_FAULT


class Interrupted(BaseException):
    """Stopped by a signal or because the time was up; the same command goes on. ``together``: so are all processes.

    As ``KeyboardInterrupt`` it is no ``Exception``: what takes a library's errors for an answer does not take it too.
    """

    exit_code = ExitCode.INTERRUPTED
    onward = "the same command goes on"

    def __init__(self, text: str, *, together: bool = False) -> None:
        self.together = together
        super().__init__(text)

    def _render_traceback_(self) -> list[str]:
        """As of :class:`UserError`: who presses a notebook's stop button knows where it was."""
        return [f"interrupted ({self}); {self.onward}"]


class BeginsAnew(Interrupted):
    """Interrupted, with nothing kept that the same command could go on from."""

    onward = "the same command begins anew"


class Lost(Interrupted):
    """Another process is gone or does not answer: there may be nobody left to tell, or no way to them."""

    SAID: Final = "another process of this run is gone or does not answer"  # how its text begins


class Problems:
    """Collects problems so that all of them are shown at once.

    >>> problems = Problems()
    >>> problems.add("no such file: a.txt", flag="--train_file")
    >>> problems.raise_if_any()
    Traceback (most recent call last):
    lmtrain.core.errors.UserError: --train_file: no such file: a.txt
    """

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def add(self, text: str, *, flag: str | None = None) -> None:
        problem = Problem(text, flag)
        if problem not in self._found:
            self._found.append(problem)

    def add_some(self, texts: Sequence[str], what: str, *, flag: str | None = None) -> None:
        """Add many problems of one kind: the first by their texts, the others as a number of ``what``."""
        for text in texts[:_SHOWN]:
            self.add(text, flag=flag)
        if (more := len(texts) - _SHOWN) > 0:
            self.add(f"and {more:,} more such {what}{'s' if more > 1 else ''}", flag=flag)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Take the problems of a :class:`UserError` raised inside and go on."""
        try:
            yield
        except UserError as error:
            for problem in error.problems:
                self.add(problem.text, flag=problem.flag)

    def raise_if_any(self) -> None:
        if self._found:
            raise UserError(problems=tuple(self._found))


@contextmanager
def about(flag: str, *, where_none: bool = False) -> Iterator[None]:
    """Let a :class:`UserError` raised inside be about ``flag``, whatever option it named; ``where_none``: only what
    names none.

    >>> with about("--like"):
    ...     raise UserError("no such folder: tok", flag="--tokenizer_name")
    Traceback (most recent call last):
    lmtrain.core.errors.UserError: --like: no such folder: tok
    """
    try:
        yield
    except UserError as error:
        error.tell(Problem(p.text, p.flag if where_none and p.flag else flag) for p in error.problems)
        raise


def first_line(error: BaseException) -> str:
    """The first line of what an error says; of one that says nothing, its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def one_line(problem: object) -> str:
    """All that an error says, in one line; of one that says nothing, its kind."""
    return " ".join(str(problem).split()) or type(problem).__name__
