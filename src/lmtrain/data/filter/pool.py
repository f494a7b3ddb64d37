"""Tasks done by several processes, their results in the order of the tasks.

Only so many tasks are under way that memory stays flat; what one task keeps beyond ``_IN_MEMORY`` bytes travels through
a file. On Linux the processes are forked where no thread is running yet, which spares each a second of imports; else
they are spawned. They end with their parent, also when it is killed, and in the middle of a file when it wants no more.
"""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from lmtrain.core.allocator import keep_freed_memory
from lmtrain.core.children import begin_child
from lmtrain.core.errors import UserError
from lmtrain.data.filter.meter import Meter, Read
from lmtrain.data.filter.segment import Job, Segment
from lmtrain.data.filter.tasks import Task

_IN_MEMORY = 32 << 20
_TICK = 0.2  # seconds between looks at the clock and at signals
_job: Job | None = None
_meter: Meter | None = None


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
    tasks: Sequence[Task], job: Job, processes: int, folder: Path, tick: Callable[[Read], None]
) -> Generator[tuple[Task, Iterator[Segment]], None, None]:
    """Each task with its segments. ``tick`` is told every now and then what was read so far; it may raise.

    Closed before its end, it stops all reading and waits for the processes. Of several tasks that fail the first to do
    so is heard of, and not first the end of those before it.
    """
    if processes == 1 or len(tasks) < 2:
        yield from _run_here(tasks, job, tick)
        return
    forked = sys.platform == "linux" and threading.active_count() == 1
    context = multiprocessing.get_context("fork" if forked else "spawn")
    meter = Meter(context)
    waiting: deque[tuple[Task, Future[_Done]]] = deque()
    left = iter(enumerate(tasks))
    executor = ProcessPoolExecutor(min(processes, len(tasks)), context, _begin, (job, meter))
    try:
        while True:
            while len(waiting) < 2 * processes and (following := next(left, None)) is not None:
                number, task = following
                waiting.append((task, executor.submit(_do, task, folder / f"{number}.segments")))
            if not waiting:
                return
            task, future = waiting.popleft()
            yield task, _ticking(_result(future, [other for _, other in waiting], tick, meter), tick, meter)
    finally:
        meter.stop()
        executor.shutdown(wait=True, cancel_futures=True)


def _run_here(
    tasks: Sequence[Task], job: Job, tick: Callable[[Read], None]
) -> Iterator[tuple[Task, Iterator[Segment]]]:
    meter = Meter()

    def counted(task: Task) -> Iterator[Segment]:
        for segment in meter.measured(task, job):
            yield segment
            tick(meter.read)

    for task in tasks:
        yield task, counted(task)


def _result(
    future: Future[_Done], others: Sequence[Future[_Done]], tick: Callable[[Read], None], meter: Meter
) -> _Done:
    try:
        while not future.done():
            wait([future], _TICK)
            for other in others:
                if other.done():
                    other.result()  # or what it failed with
            tick(meter.read)
        return future.result()
    except BrokenProcessPool:
        raise UserError("a reading process was ended from outside, perhaps because memory ran out; with fewer "
                        "processes the same command goes on", flag="--num_proc") from None  # fmt: skip


def _ticking(segments: _Done, tick: Callable[[Read], None], meter: Meter) -> Iterator[Segment]:
    for segment in segments:
        yield segment
        tick(meter.read)


def _begin(job: Job, meter: Meter) -> None:
    global _job, _meter
    _job, _meter = job, meter
    begin_child()
    keep_freed_memory()


def _do(task: Task, path: Path) -> _Done:
    """In a reading process."""
    assert _job is not None and _meter is not None
    held: list[Segment] = []
    size = 0
    spilled = None
    try:
        for segment in _meter.measured(task, _job):
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
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        if spilled is not None:
            spilled.close()
