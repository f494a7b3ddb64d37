"""How far the reading processes have come, counted together, and the word to stop that all of them hear."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

from lmtrain.data.filter.reading import segments_of
from lmtrain.data.filter.segment import Job, Segment
from lmtrain.data.filter.tasks import Task

_IN_PARTS = ("lines", "table")  # stretches of a file and row groups: what is read of them is not what they take on disk
_TEXT, _DISK, _STOP = range(3)


class Stopped(Exception):  # noqa: N818 -- nothing went wrong
    """In a reading process: whoever wanted its segments has ended."""


class Read(NamedTuple):
    """Bytes judged (as the account counts them), and bytes of the input on disk that were read for them."""

    text: int = 0
    disk: int = 0


class Meter:
    """Numbers shared by all processes of a ``context``, or this process's own."""

    def __init__(self, context: BaseContext | None = None) -> None:
        self._lock: Any = context.Lock() if context else None
        self._numbers: Any = context.RawArray("q", 3) if context else [0, 0, 0]

    @property
    def read(self) -> Read:
        return Read(self._numbers[_TEXT], self._numbers[_DISK])

    def stop(self) -> None:
        """Let every :meth:`measured` end at its next read from the disk."""
        self._numbers[_STOP] = 1

    def measured(self, task: Task, job: Job) -> Iterator[Segment]:
        """The segments of a task. A file that is read from front to back counts as it goes, others when they are done.

        Raises :class:`Stopped`.
        """
        came = counted = 0

        def on_read(size: int) -> None:
            nonlocal came
            came += size
            if self._numbers[_STOP]:
                raise Stopped

        watched = () if task.form in _IN_PARTS else task.files
        for file in watched:
            file.on_read = on_read
        try:
            on_read(0)
            for segment in segments_of(task, job):
                on_read(0)
                now = min(came, task.size)  # a file is read again to find the line of what is wrong in it
                self._add(segment.account.seen.bytes, now - counted)
                counted = now
                yield segment
            self._add(0, task.size - counted)
        finally:
            for file in watched:
                file.on_read = None

    def _add(self, text: int, disk: int) -> None:
        if self._lock is not None:
            with self._lock:
                self._numbers[_TEXT] += text
                self._numbers[_DISK] += disk
            return
        self._numbers[_TEXT] += text
        self._numbers[_DISK] += disk
