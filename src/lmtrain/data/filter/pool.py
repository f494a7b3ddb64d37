"""Tasks done by several processes, their results in the order of the tasks.

Only so many tasks are under way that memory stays flat; what one task keeps beyond ``_IN_MEMORY`` bytes travels through
a file. On Linux the processes are forked where no thread is running yet, which spares each a second of imports; else
they are spawned. They end with their parent, also when it is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmtrain.core.children import begin_child
from lmtrain.core.errors import UserError
from lmtrain.data.filter.segment import Job, Segment
from lmtrain.data.filter.tasks import Task

_IN_MEMORY = 32 << 20
_TICK = 0.2  # seconds between looks at the clock and at signals
_job: Job | None = None
_read: Any = None  # a number that all processes share: bytes read


@dataclass(frozen=True)
class _Done:
    """The segments of a task, or the file that holds them one after another."""

    segments: list[Segment]
    spilled: Path | None = None

    def __iter__(self) -> Iterator[Segment]:
        yield from self.segments
        if self.spilled is not None:
            with self.spilled.open("rb") as stream:
                while True:
                    try:
                        yield pickle.load(stream)
                    except EOFError:
                        break
            self.spilled.unlink()


def run_tasks(
    tasks: Sequence[Task], job: Job, processes: int, folder: Path, tick: Callable[[int], None]
) -> Iterator[tuple[Task, Iterator[Segment]]]:
    """Each task with its segments. ``tick`` is called every now and then with the bytes read so far; it may raise."""
    if processes == 1 or len(tasks) < 2:
        yield from _run_here(tasks, job, tick)
        return
    forked = sys.platform == "linux" and threading.active_count() == 1
    context = multiprocessing.get_context("fork" if forked else "spawn")
    read = context.Value("q", 0)
    waiting: deque[tuple[Task, Future[_Done]]] = deque()
    left = iter(enumerate(tasks))
    executor = ProcessPoolExecutor(min(processes, len(tasks)), context, _begin, (job, read))
    try:
        while True:
            while len(waiting) < 2 * processes and (following := next(left, None)) is not None:
                number, task = following
                waiting.append((task, executor.submit(_do, task, folder / f"{number}.segments")))
            if not waiting:
                return
            task, future = waiting.popleft()
            yield task, _ticking(_result(future, tick, read), tick, read)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_here(tasks: Sequence[Task], job: Job, tick: Callable[[int], None]) -> Iterator[tuple[Task, Iterator[Segment]]]:
    read = 0

    def counted(task: Task) -> Iterator[Segment]:
        nonlocal read
        for segment in task.segments(job):
            yield segment
            read += segment.account.seen.bytes
            tick(read)

    for task in tasks:
        yield task, counted(task)


def _result(future: Future[_Done], tick: Callable[[int], None], read: Any) -> _Done:
    while True:
        try:
            return future.result(timeout=_TICK)
        except TimeoutError:
            tick(read.value)
        except BrokenProcessPool:
            raise UserError("a reading process was ended from outside, perhaps because memory ran out; with fewer "
                            "processes the same command goes on", flag="--num_proc") from None  # fmt: skip


def _ticking(segments: _Done, tick: Callable[[int], None], read: Any) -> Iterator[Segment]:
    for segment in segments:
        yield segment
        tick(read.value)


def _begin(job: Job, read: Any) -> None:
    global _job, _read
    _job, _read = job, read
    begin_child()


def _do(task: Task, path: Path) -> _Done:
    assert _job is not None
    held: list[Segment] = []
    size = 0
    spilled = None
    try:
        for segment in task.segments(_job):
            with _read.get_lock():
                _read.value += segment.account.seen.bytes
            held.append(segment)
            size += len(segment.payload) + (segment.marks.bytes if segment.marks else 0)
            if size > _IN_MEMORY:
                spilled = spilled or path.open("wb")
                for each in held:
                    pickle.dump(each, spilled, protocol=5)
                held, size = [], 0
        if spilled is None:
            return _Done(held)
        for each in held:
            pickle.dump(each, spilled, protocol=5)
        return _Done([], path)
    finally:
        if spilled is not None:
            spilled.close()
