"""Lines to the person at the terminal: what is being done, and why, a topic in front of each.

They go to standard error, so that what a command prints as its result can be piped on. Under torchrun only the
first process speaks.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Final, Protocol, TextIO

from lmtrain.core.launching import rank

_GONE: Final = frozenset({errno.EPIPE, errno.EIO})  # what a pipe and a terminal say that nobody reads any more
_listeners: list[Callable[[str], None]] = []


class Say(Protocol):
    """Where a stage puts its lines: ``say("store", "9.5 M tokens in 0.4 s")``."""

    def __call__(self, topic: str, text: str) -> None: ...


def say(topic: str, text: str) -> None:
    """``● store      9.5 M tokens in 0.4 s``, on :func:`told_to`; further lines of a text stand below its first."""
    note(f"{topic:<10} {text}")
    if is_first_process():
        line = f"● {topic:<10} " + text.replace("\n", "\n" + " " * 13)
        try:
            print(line, file=told_to(), flush=True)
        except RuntimeError:  # said by a signal's handler, which came while another line was being written
            with suppress(OSError):
                os.write(told_to().fileno(), f"{line}\n".encode(errors="replace"))


def note(text: str) -> None:
    """For the logs that listen (:func:`hear`), not for the terminal."""
    for listener in _listeners:
        listener(text)


def hear(listener: Callable[[str], None]) -> None:
    """Call ``listener`` with every line that is said or noted, on every process."""
    _listeners.append(listener)


def hear_no_more(listener: Callable[[str], None]) -> None:
    if listener in _listeners:
        _listeners.remove(listener)


def told_to() -> TextIO:
    """Standard error; in a notebook, which shows that as alarm, standard output."""
    return sys.stdout if type(sys.stderr).__module__.startswith("ipykernel") else sys.stderr


class Unfailing:
    """``stream``, to a reader who may leave: the terminal of a connection that was lost, ``tee``, which Ctrl-C ends
    too, a log on a full disk. What cannot be written is lost, and what was going on goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._losing():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._losing():
            self._stream.flush()

    @contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _GONE:  # for libraries in C too, and for what Python still holds of it when it ends
                with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 -- no folder
                    os.dup2(nowhere.fileno(), self._stream.fileno())


def counted(number: int, noun: str) -> str:
    """``1 document``, ``2,000 documents``, ``2 processes``."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def silent(topic: str, text: str) -> None:
    """For callers that want no lines."""


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but line breaks and tabs


def for_reader(text: str, stream: IO[str]) -> str:
    """``text`` as ``stream`` gets it: a terminal obeys control characters (its title, its clipboard), and a model
    writes what it was taught by anybody, so there they are spelled out.
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text) if stream.isatty() else text


def is_first_process() -> bool:
    """True unless a launcher says that this is another of several processes; see :mod:`lmtrain.core.launching`."""
    return rank() == 0


def amount(number: float, unit: str = "") -> str:
    """A number as people read it: 9.5 M, 12.3 k, 812; with ``unit`` behind it.

    >>> amount(9_500_000, "tokens"), amount(812), amount(31_507_418, "B")
    ('9.5 M tokens', '812', '31.5 MB')
    """
    value, prefix = float(number), ""
    for bigger in ("k", "M", "G", "T"):
        if abs(value) < 999.5:
            break
        value, prefix = value / 1000, bigger
    digits = f"{value:.1f}" if prefix else f"{value:g}"
    if unit == "B":
        return f"{digits} {prefix}B"
    return " ".join(part for part in (digits, prefix, unit) if part)


def duration(seconds: float) -> str:
    """``0.4 s``, ``48 s``, ``3 min 10 s``, ``2 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
