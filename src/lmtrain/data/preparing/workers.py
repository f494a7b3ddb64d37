"""Parts made by several workers, handed on in order: processes of this machine, or tasks of Ray.

A worker is a process that reads and encodes with one thread. Parts travel as files, in a folder that all workers see;
so many are under way that all are busy and disk space stays bounded.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from lmtrain.core.allocator import keep_freed_memory
from lmtrain.core.children import begin_child
from lmtrain.core.errors import UserError
from lmtrain.core.files import sha256_json
from lmtrain.core.problem_block import Problem
from lmtrain.data.fast_engine import Loading, limit_threads, load_fastokens
from lmtrain.data.preparing.encoding import Work
from lmtrain.data.preparing.engine import Engine
from lmtrain.data.preparing.parts import PartRecord, write_part
from lmtrain.data.preparing.plan import Segment
from lmtrain.data.preparing.request import SEGMENT
from lmtrain.data.tokenization import DiffersError, FastokensEncoder, Proof, reference_encoder
from lmtrain.data.tokenizer_files import TokenizerFiles

_LARGEST = 64 << 20  # bytes of source in one part
_TURNS = 128  # parts for each worker, where there is that much text: they end at nearly the same time


@dataclass(frozen=True)
class Job:
    """What every worker has to know once. ``fast``: it is worth loading the fast engine before one is chosen."""

    tokenizer: TokenizerFiles
    fast: bool
    seed: str
    loaded: Any = None  # the fast engine, where a worker can have it from its parent

    @classmethod
    def of(cls, tokenizer: TokenizerFiles, seed: str) -> Job:
        return cls(replace(tokenizer, fast=None), tokenizer.fast is not None, seed)

    def with_engine(self, fast: Loading[Any] | None) -> Job:
        with suppress(Exception):  # it is not there, or does not know this tokenizer; the parent says so
            return replace(self, loaded=fast.result() if fast else None)
        return self

    @property
    def name(self) -> str:
        return sha256_json([self.tokenizer.fingerprint, self.fast, self.seed])


@dataclass(frozen=True)
class Task:
    """A part to make in the folder ``place``; ``fast``: with the fast engine, which the parent proved equal."""

    work: Work
    place: Path
    fast: bool


@dataclass(frozen=True)
class Failure:
    """What went wrong, in a form that travels: ``problems`` of the user's input, or where the engines ``differ``."""

    problems: tuple[Problem, ...] = ()
    differ: str = ""

    def raise_it(self) -> None:
        if self.problems:
            raise UserError(problems=self.problems)
        raise DiffersError.saying(self.differ)


Outcome = PartRecord | Failure


class Underway(Protocol):
    """A task that a worker has. ``place``: the folder that its part lies in once there is a result."""

    @property
    def place(self) -> Path: ...

    def ready(self) -> bool: ...

    def result(self) -> Outcome: ...


Submit = Callable[[Task], Underway]


def run_parts(
    ranges: Sequence[range], task: Callable[[range, Path], Task], folder: Path, submit: Submit, workers: int,
    here: Callable[[Task], Outcome] | None,
) -> Iterator[tuple[Path, PartRecord]]:  # fmt: skip
    """Each part's folder and record, in order; the folder is gone afterwards. Raises :class:`DiffersError`.

    ``here`` makes parts in this process too, while those of the ``workers`` are not ready. Parts are then written over
    those that were handed on: finding memory for the pages of a new file costs more than writing and reading them.
    """
    waiting: deque[tuple[Path, Underway | Outcome]] = deque()
    left = iter(enumerate(ranges))
    free: list[Path] = []
    given = 0  # to workers, and not ready

    def following() -> Task | None:
        if (found := next(left, None)) is None:
            return None
        if free:
            return task(found[1], free.pop())
        place = folder / f"{found[0]:07d}"
        place.mkdir()
        return task(found[1], place)

    while True:
        given = sum(1 for _, one in waiting if not isinstance(one, PartRecord | Failure) and not one.ready())
        while given < 2 * workers and len(waiting) < 8 * workers and (one := following()) is not None:
            waiting.append((one.place, submit(one)))
            given += 1
        if not waiting:
            return
        place, under_way = waiting[0]
        if not isinstance(under_way, PartRecord | Failure):
            idle = here is not None and not under_way.ready() and len(waiting) < 8 * workers
            if idle and here is not None and (one := following()) is not None:
                waiting.append((one.place, here(one)))
                continue
            made = under_way.result()
            place, under_way = under_way.place, made
        waiting.popleft()
        if isinstance(under_way, Failure):
            under_way.raise_it()
        assert isinstance(under_way, PartRecord)
        yield place, under_way
        if here is not None:
            free.append(place)
        else:  # a cluster's file system may show others what a file held before
            shutil.rmtree(place)


def count_of(segments: Sequence[Segment], workers: int, segment_bytes: int = SEGMENT) -> int:
    """Into how many parts to divide the text."""
    size = sum(segment.size for segment in segments)
    each = min(_LARGEST, max(segment_bytes, size // (workers * _TURNS)))
    return max(1, min(len(segments), -(-size // each)))


@contextmanager
def local_workers(job: Job, workers: int, fast: Loading[Any] | None) -> Iterator[Submit]:
    """Processes of this machine. ``fast``: the engine that this process loads or has loaded."""
    import multiprocessing
    from concurrent.futures import Future, ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    ready = job.with_engine(fast)  # waits for the thread that loads it
    if forked := _may_fork():
        job = ready
    context = multiprocessing.get_context("fork" if forked else "spawn")
    executor = ProcessPoolExecutor(workers, context, _begin, (job,))

    for _ in range(workers):
        executor.submit(os.getpid)  # begins a process

    @contextmanager
    def explained(task: Task) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool:
            named = next((source.name for source in task.work.sources.values()), "text")
            raise UserError(
                f"a process that prepares was ended from outside, while {named} or what follows on it was read, "
                "perhaps because memory ran out (try fewer), or never began: a program that starts some keeps what it "
                "runs under if __name__ == '__main__'",
                flag="--preprocessing_num_workers",
            ) from None

    @dataclass(frozen=True)
    class Submitted:
        future: Future[Outcome]
        task: Task

        @property
        def place(self) -> Path:
            return self.task.place

        def ready(self) -> bool:
            return self.future.done()

        def result(self) -> Outcome:
            with explained(self.task):
                return self.future.result()

    def submit(task: Task) -> Underway:
        with explained(task):
            return Submitted(executor.submit(do, task), task)

    try:
        yield submit
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _may_fork() -> bool:
    """Whether a copy of this process would work: it spares each worker a second of imports and loading.

    No other thread may be running: none of Python's, no engine's, none of torch's.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    alone = not others and threading.current_thread() is threading.main_thread()
    return sys.platform == "linux" and alone and not FastokensEncoder.used and "torch" not in sys.modules


_taken: dict[str, Job] = {}  # of this worker, the one by its name: Ray's serve one job after another
_engines: dict[bool, Engine] = {}  # of that job: the plain and the fast one


def _begin(job: Job) -> None:
    begin_child()
    keep_freed_memory()
    take(job)


def take(job: Job) -> None:
    """Make this process ready to work for ``job``, unless it is."""
    limit_threads(1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not is_ready(job.name):
        _taken.clear()
        _engines.clear()
        _taken[job.name] = job
        if job.fast:
            with suppress(Exception):  # then it is not asked for
                _engine(job, True)


def is_ready(name: str) -> bool:
    """Whether this process has taken the job of that name."""
    return name in _taken


def _engine(job: Job, fast: bool) -> Engine:
    if fast not in _engines:
        plain = reference_encoder(job.tokenizer)
        if fast:
            encoder = FastokensEncoder(job.loaded or load_fastokens(job.tokenizer.backend.to_str()))
            _engines[fast] = Engine(encoder, Proof(encoder, plain), "")
        else:
            _engines[fast] = Engine(plain, None, "")
    return _engines[fast]


def do(task: Task) -> Outcome:
    """Do a task of the job that was taken."""
    (job,) = _taken.values()
    return outcome_of(task, job.tokenizer, _engine(job, task.fast), job.seed)


def outcome_of(task: Task, tokenizer: TokenizerFiles, engine: Engine, seed: str) -> Outcome:
    """The part, or what kept it from being made."""
    try:
        return write_part(task.place, task.work, tokenizer, engine, seed)
    except DiffersError as error:
        return Failure(differ=str(error))
    except UserError as error:
        return Failure(problems=error.problems)
