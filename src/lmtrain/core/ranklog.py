"""``logs/rank-N.log`` in a run folder: what one process of the run said, was warned of and died of.

Rank N of a launcher writes ``rank-N.log``, a run without one ``rank-0.log``. A run that goes on appends; every start
begins with a line of equals signs that tells rank, host, process and versions. Lines are kept from the moment at which
:func:`listening` begins and written once the folder is known (:meth:`RankLog.open`), so a command that fails before
there is a run leaves nothing behind. Keys and passwords are taken out (:mod:`lmtrain.core.secrets`).

On the terminal only the first process speaks; warnings of the others stand in their logs and nowhere else.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import platform
import re
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from lmtrain.core.console import hear, hear_no_more, is_first_process, told_to
from lmtrain.core.errors import Interrupted, Lost, OwnResultWrong, UserError
from lmtrain.core.launching import processes, rank
from lmtrain.core.secrets import without_keys

FOLDER: Final = "logs"
_NAMED: Final = re.compile(r"rank-(\d+)(?:\.\d+)?\.log$")
_OWN_HANDLERS: Final = ("transformers", "huggingface_hub", "datasets")  # loggers that keep their records to themselves
_EXPECTED: Final = (UserError, OwnResultWrong, Interrupted, KeyboardInterrupt)  # whose traceback tells nobody anything
_MOST_KEPT: Final = 2000  # lines before there is a folder
_TAIL: Final = 65_536  # bytes of a log that are looked through for how its process ended
_SKEW: Final = 5.0  # seconds by which the clocks of two hosts may differ
_TOLD: Final = "_lmtrain_told"
_current: RankLog | None = None


def host() -> str:
    return platform.node() or "?"


class RankLog:
    """The log of this process. ``speaks``: its warnings are shown on the terminal too."""

    def __init__(self, *, speaks: bool) -> None:
        self.rank = rank()
        self.speaks = speaks
        self.path: Path | None = None
        self.began = self.opened = time.time()
        self._kept: list[str] = []
        self._stream: io.FileIO | None = None
        self._lock = threading.RLock()  # a signal's handler may write while a line is being written
        self._told: BaseException | None = None  # the failure that stands in the log
        self._handlers: list[tuple[logging.Logger, logging.Handler]] = []
        self._muted: list[tuple[logging.Handler, int]] = []
        self._before: Any = None
        self._notes_faults = False

    # ---- what is heard ---------------------------------------------------------------------------

    def attach(self) -> None:
        """Take in what is said, logged and warned of from now on."""
        hear(self.write)
        root = logging.getLogger()
        if not root.handlers:  # else logging's handler of last resort, which shows warnings, would fall silent
            self._add(root, _Terminal(logging.WARNING if self.speaks else logging.ERROR))
        kept = _Kept(self)
        for logger in (root, *map(logging.getLogger, _OWN_HANDLERS)):
            self._add(logger, kept)
        self._before, warnings.showwarning = warnings.showwarning, self._warned

    def detach(self) -> None:
        hear_no_more(self.write)
        for logger, handler in self._handlers:
            logger.removeHandler(handler)
        for handler, level in self._muted:
            handler.setLevel(level)
        if warnings.showwarning == self._warned:
            warnings.showwarning = self._before
        self._handlers, self._muted = [], []

    def _add(self, logger: logging.Logger, handler: logging.Handler) -> None:
        logger.addHandler(handler)
        self._handlers.append((logger, handler))

    def _warned(
        self, message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        self.write(f"warning: {filename}:{lineno}: {category.__name__}: {message}")
        if self.speaks or file is not None:
            self._before(message, category, filename, lineno, file, line)

    def _mute_libraries(self) -> None:
        """Errors only, of libraries that print themselves."""
        for name in _OWN_HANDLERS:
            for handler in logging.getLogger(name).handlers:
                if isinstance(handler, logging.StreamHandler) and handler.level < logging.ERROR:
                    self._muted.append((handler, handler.level))
                    handler.setLevel(logging.ERROR)

    # ---- what is written -------------------------------------------------------------------------

    def open(self, run: Path, about: Mapping[str, Any], *, anew: bool = False) -> None:
        """Write what was kept, and all that follows, into ``run/logs``; ``about`` stands in the line of the start.

        ``anew`` takes away what an earlier run left. A folder that cannot be written to keeps no log, and no run from
        being made. Nothing happens where it is open in that folder already.
        """
        folder = run / FOLDER
        if self._stream is not None and self.path is not None and self.path.parent == folder:
            return
        if not self.speaks:
            self._mute_libraries()
        with self._lock, suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if folder.is_symlink():
                raise OSError("a link, which leads to what is not the run's")
            stream = _own_file(folder / f"rank-{self.rank}.log")
            if anew:
                stream.truncate(0)
            if self._stream is not None:
                self._stream.close()
            self._stream, self.path, self.opened = stream, Path(str(stream.name)), time.time()
            told = {"rank": f"{self.rank} of {processes()}", "host": host(), "pid": os.getpid(), **about}
            if (restarts := os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) != "0":
                told["restart"] = restarts
            start = "==== start: " + ", ".join(f"{name} {value}" for name, value in told.items())
            self._put(_stamped(start, self.began))
            kept, self._kept = self._kept, []
            for line in kept:
                self._put(line)
            if not faulthandler.is_enabled():  # a crash in a library leaves the lines of Python that led there
                faulthandler.enable(stream)
                self._notes_faults = True

    def write(self, text: str) -> None:
        """A line, or several that belong together."""
        line = _stamped(without_keys(text))
        with self._lock:
            if self._stream is not None:
                self._put(line)
            elif len(self._kept) < _MOST_KEPT:
                self._kept.append(line)

    def _put(self, line: str) -> None:
        with suppress(OSError, ValueError):  # a full disk is told of where a checkpoint fails
            assert self._stream is not None
            self._stream.write(f"{line}\n".encode(errors="replace"))  # no buffer, which no signal's handler may enter

    def ended(self, error: BaseException | None) -> None:
        """How it ended; an error is told once, on whatever way up it passes."""
        if error is None:
            self.write("==== end")
        elif error is not self._told:
            self._told = error
            if not isinstance(error, _EXPECTED):
                self.write("".join(traceback.format_exception(error)).rstrip())
            word = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
            self.write(f"==== {word}: rank {self.rank} on {host()}: {_named(error)}")

    def close(self) -> None:
        if self._notes_faults:
            faulthandler.disable()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
                self._stream = None


class _Kept(logging.Handler):
    """Into the log; a record that reaches it twice, by a library's logger and the root's, is written once."""

    def __init__(self, log: RankLog) -> None:
        super().__init__(logging.INFO)
        self._log = log
        self._newest: logging.LogRecord | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record is not self._newest:
            self._newest = record
            self._log.write(f"{record.levelname.lower()}: {record.name}: {self.format(record)}")


class _Terminal(logging.Handler):
    """The words alone, where they are told to now."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):
            print(self.format(record), file=told_to(), flush=True)


@contextmanager
def listening(*, on_each_node: bool = False) -> Iterator[RankLog]:
    """Keep a log of this process until the block ends, for the folder that is going to be known; in a block of the
    same kind it is that one's. ``on_each_node``: the first process of each machine shows its warnings, not only that
    of the run."""
    global _current
    if _current is not None:
        yield _current
        return
    first_here = on_each_node and os.environ.get("LOCAL_RANK") == "0"
    log = _current = RankLog(speaks=is_first_process() or first_here)
    if not log.speaks:  # torch's own warnings, which it prints itself on every rank; read when torch is imported
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    log.attach()
    try:
        yield log
        log.ended(None)
    except BaseException as error:
        log.ended(error)
        if not is_first_process() and log.path is not None and not isinstance(error, _EXPECTED):
            # One line for each process that failed, where there was a traceback: that stands in the file.
            print(f"{_failed(log.rank, host(), _named(error))}; see {log.path}", file=told_to(), flush=True)
            vars(error)[_TOLD] = True
        raise
    finally:
        _current = None
        log.detach()
        log.close()


def is_told(error: BaseException) -> bool:
    """Whether the terminal has a line on ``error`` already that names the log with its traceback."""
    return _TOLD in vars(error)


def remove_others(run: Path) -> None:
    """Remove the logs of an earlier run's processes that this one has no more; each process empties its own."""
    for path in (run / FOLDER).glob("rank-*.log"):
        named = _NAMED.match(path.name)
        if named and (int(named[1]) >= processes() or path.name.count(".") > 1):
            with suppress(OSError):
                path.unlink()


def failures(run: Path, since: float, patience: float = 0.0, *, interrupted: bool = False) -> list[str]:
    """Which other processes of the run failed after ``since`` (seconds since the epoch), as their logs tell:
    ``rank 3 on b failed: ValueError: ...; see logs/rank-3.log``. It may take ``patience`` seconds until one does.
    ``interrupted``: also those that were interrupted, but for those that only missed another one."""
    words = "failed|interrupted" if interrupted else "failed"
    until = time.monotonic() + patience
    while not (found := list(_failures(run / FOLDER, since, words))) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def _failures(folder: Path, since: float, words: str) -> Iterator[str]:
    logs = [(int(named[1]), path) for path in folder.glob("rank-*.log") if (named := _NAMED.match(path.name))]
    for number, path in sorted(logs):
        with suppress(OSError):
            if number == rank() or path.stat().st_mtime < since - _SKEW:
                continue
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - _TAIL))
                text = stream.read().decode("utf-8", errors="replace")
            found = re.search(rf"==== ({words}): rank \d+ on (\S+): (.*)", text.rpartition("==== start: ")[2])
            if found and not found[3].startswith(Lost.SAID):
                yield f"{_failed(number, found[2], found[3], found[1])}; see {FOLDER}/{path.name}"


def _failed(number: int, where: str, what: str, how: str = "failed") -> str:
    return f"rank {number} on {where} {'was ' if how == 'interrupted' else ''}{how}: {what}"


def _named(error: BaseException) -> str:
    """Of an error the kind and the first line of what it says; of what a user can mend only that."""
    said = (without_keys(str(error)).strip().splitlines() or [""])[0]
    kind = type(error).__name__
    return said if said and isinstance(error, _EXPECTED) else f"{kind}: {said}" if said else kind


def _own_file(path: Path) -> io.FileIO:
    """``path`` for appending, or, where another process writes to that, a file beside it that bears this process's
    number. Where files cannot be locked, as on Windows, the name alone has to do. A link is not followed."""
    if path.is_symlink():
        raise OSError("a link, which leads to what is not the run's")
    stream = path.open("ab", buffering=0)
    try:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return path.with_name(f"{path.stem}.{os.getpid()}.log").open("ab", buffering=0)
    except (ImportError, OSError):
        pass
    return stream


def _stamped(text: str, now: float | None = None) -> str:
    """``2026-11-22 03:35:23.120  text``; further lines of a text are set in."""
    now = time.time() if now is None else now
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1000):03d}  "
    return stamp + text.rstrip().replace("\n", "\n" + " " * len(stamp))
