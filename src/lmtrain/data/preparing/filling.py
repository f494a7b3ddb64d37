"""Segments into a writer, by whoever was asked: this process alone, or workers whose parts are put together."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lmtrain.core.errors import UserError
from lmtrain.data.preparing.encoding import Account, Work, encode
from lmtrain.data.preparing.engine import Engine
from lmtrain.data.preparing.parts import PartRecord
from lmtrain.data.preparing.plan import Segment, ranges_of
from lmtrain.data.preparing.request import Request
from lmtrain.data.preparing.workers import (
    Job,
    Outcome,
    Submit,
    Task,
    count_of,
    local_workers,
    outcome_of,
    run_parts,
)
from lmtrain.data.store_writer import DocumentWriter

PARTS = "parts-"  # the names of folders begin with it that hold what a crew makes


@contextmanager
def crew_for(request: Request, segments: Sequence[Segment], seed: str) -> Iterator[Crew | None]:
    """Workers for these segments, which begin at once, beside whatever comes first; None where one process does it."""
    making, job = request.making, Job.of(request.tokenizer, seed)

    def parts(workers: int) -> list[range]:
        return ranges_of(segments, count_of(segments, workers, making.segment_bytes))

    if making.engine == "ray":
        from lmtrain.data.preparing.on_ray import joined, ray_workers

        with joined(making.workers, lambda n: min(n, len(parts(n)))) as workers, ray_workers(job) as submit:
            yield Crew(submit, workers, parts(workers), takes_part=False)
        return
    ranges = parts(making.workers or 1)
    workers = min(making.workers or 1, len(ranges)) - 1  # this process is one of them
    if workers < 1:
        yield None
        return
    with local_workers(job, workers, request.tokenizer.fast) as submit:
        yield Crew(submit, workers, ranges, takes_part=True)


@dataclass(frozen=True)
class Crew:
    """Who makes which ``ranges`` of segments. ``takes_part``: beside the ``workers``, this process too."""

    submit: Submit
    workers: int
    ranges: Sequence[range]
    takes_part: bool


def fill(writer: DocumentWriter, request: Request, work: Work, engine: Engine, seed: str, crew: Crew | None) -> Account:
    """Write the tokens of ``work``. What a crew makes meanwhile lies in the writer's folder.

    Raises :class:`DiffersError` when the fast engine differs from the plain one.
    """
    if crew:
        return append_parts(writer, _made(crew, writer.folder, request, work, engine, seed))
    return encode(work, engine, writer, seed, beside=request.making.workers is None)


def append_parts(writer: DocumentWriter, parts: Iterable[tuple[Path, PartRecord, str | None]]) -> Account:
    """Put parts one behind the other; each with the SHA-256 of its tokens where that is known."""
    account = Account()
    for folder, record, sha256 in parts:
        digest = hashlib.sha256() if sha256 is not None else None
        writer.append_part(folder, record.continued, digest)
        if digest is not None and digest.hexdigest() != sha256:
            raise UserError(f"{folder} is damaged: its tokens are not what was written; delete it, and make it again")
        account += record.account
    return account


def _made(
    crew: Crew, folder: Path, request: Request, work: Work, engine: Engine, seed: str
) -> Iterator[tuple[Path, PartRecord, None]]:
    """Parts in order, in a new folder below ``folder``: tasks of an earlier attempt may still write to theirs."""
    compared = engine.proof.bytes_compared if engine.proof else 0  # parts made here count themselves

    def task(part: range, place: Path) -> Task:
        some = Work.of(work.segments[part.start : part.stop], request.sources, work.cut)
        return Task(some, place, engine.proof is not None)

    def here(task: Task) -> Outcome:
        return outcome_of(task, request.tokenizer, engine, seed)

    parts = Path(tempfile.mkdtemp(prefix=PARTS, dir=folder))
    own = here if crew.takes_part else None
    for place, record in run_parts(crew.ranges, task, parts, crew.submit, crew.workers, own):
        compared += record.compared
        yield place, record, None
    if engine.proof:
        engine.proof.bytes_compared = compared
    shutil.rmtree(parts, ignore_errors=True)  # with what a lost task may have left
