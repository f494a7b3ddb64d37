"""A session at the terminal, or over a pipe: a line in, an answer out, until the input ends."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from lmtrain.core.errors import UserError

QUIT: Final = "/quit"
_SIGN = "> "
_HINT = f"a prompt a line; Ctrl-C stops an answer, Ctrl-D or {QUIT} ends"


def session(answer: Callable[[str, Callable[[], bool]], object]) -> None:
    """Call ``answer(prompt, asked)`` for each line of standard input that is not blank.

    ``asked()`` turns True when Ctrl-C was pressed since the prompt: the answer is to end with what it has. What is
    wrong with a prompt (:class:`UserError`) is said, and the session goes on. In a terminal lines can be edited and
    called up again.
    """
    talks = sys.stdin.isatty()
    if talks:
        with suppress(ImportError):
            import readline  # noqa: F401 -- input() edits lines once it is imported

        print(_HINT, file=sys.stderr, flush=True)
    for prompt in _lines(talks):
        if prompt.strip() == QUIT:
            return
        with _asking() as asked:
            try:
                answer(prompt, asked)
            except UserError as error:
                for problem in error.problems:
                    print(problem.text, file=sys.stderr, flush=True)
            if asked() and talks:
                print("(stopped)", file=sys.stderr, flush=True)


def _lines(talks: bool) -> Iterator[str]:
    while True:
        try:
            line = _typed() if talks else sys.stdin.readline()
        except EOFError:  # Ctrl-D
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:  # nothing is being written: the line is given up
            if not talks:
                raise
            print(f"\n{_HINT}", file=sys.stderr, flush=True)
            continue
        except UnicodeDecodeError as error:
            raise UserError(f"standard input is not UTF-8 (at byte {error.start} of what was read)") from error
        if not talks and not line:
            return
        if line.strip():
            yield line.removesuffix("\n").removesuffix("\r")


def _typed() -> str:
    """A line of the terminal. Where the answers go to a file or a pipe, the sign is not among them."""
    if sys.stdout.isatty():
        return input(_SIGN)
    print(_SIGN, end="", file=sys.stderr, flush=True)
    return input()


@contextmanager
def _asking() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; pressed once more it interrupts as always."""
    pressed = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
