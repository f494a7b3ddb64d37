"""``metrics.jsonl``: one event a line, each line complete JSON, readable while the run goes on."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from lmtrain.core.console import say

_MOST_KEPT: Final = 1 << 20  # bytes of events that wait for room on the disk


class Events(Protocol):
    """Where events go: a :class:`RunLog`, or what has one."""

    def event(self, kind: str, **values: Any) -> None: ...


def _plain(value: Any) -> Any:
    """Make a value JSON that any parser accepts: non-finite numbers become strings ("nan", "inf")."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    item = getattr(value, "item", None)  # numpy and torch scalars
    return _plain(item()) if callable(item) else str(value)


class RunLog:
    """Appends events to a file. Each is handed to the system at once, so a killed run loses at most the line being
    written; the next part of the run begins a line of its own.

    A file that cannot be written (a full disk, a lost right) stops no training: that is said once, and the events wait
    in memory, at most 1 MiB of them, until it can be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream: BinaryIO = path.open("ab+", buffering=0)
        self._waiting = b"" if _ends_with_a_line(self._stream) else b"\n"
        self._fails = False

    def event(self, kind: str, **values: Any) -> None:
        line = json.dumps({"event": kind, "time": round(time.time(), 3), **_plain(values)}, ensure_ascii=False)
        if len(self._waiting) < _MOST_KEPT:
            self._waiting += f"{line}\n".encode(errors="replace")
        try:
            self._write()
            self._fails = False
        except OSError as error:
            failed, self._fails = self._fails, True
            if not failed:
                say("attention", f"{self.path} cannot be written ({error.strerror}); training goes on, and what would "
                                 "stand there waits in memory")  # fmt: skip

    def _write(self) -> None:
        while self._waiting:  # the system may take less than it is given
            self._waiting = self._waiting[self._stream.write(self._waiting) :]

    def close(self) -> None:
        with suppress(OSError):
            self._write()
        with suppress(OSError):
            self._stream.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ends_with_a_line(stream: BinaryIO) -> bool:
    """Whether what is appended begins a line: a power cut or a full disk may have left a part of one."""
    try:
        if not stream.seek(0, os.SEEK_END):
            return True
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"
    except OSError:  # no file that can be read back, such as a pipe
        return True


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a log; a half-written last line, as a killed run leaves it, is passed over."""
    with path.open(encoding="utf-8", errors="replace") as stream:  # it may have been cut within a letter
        for line in stream:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict):
                yield event
