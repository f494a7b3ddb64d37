"""``lmtrain filter``: one pass over the input, several reading processes, one that writes, and a report.

``--output`` holds the shards and, hidden from whoever reads the folder, ``.filter/``: how far it came
(:mod:`~lmtrain.data.filter.state`), what is under way, and the report. The shards depend on the input and the options
alone: not on how many processes there are, nor on how often it was stopped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from lmtrain.config.commands.filter import FilterOptions
from lmtrain.config.mix import Mix
from lmtrain.config.values import user_path
from lmtrain.core.children import cores
from lmtrain.core.console import Say, amount, counted, silent
from lmtrain.core.errors import Interrupted
from lmtrain.core.files import read_json, sync_folder, write_json
from lmtrain.core.stopping import Stop
from lmtrain.data.filter.account import Count
from lmtrain.data.filter.inputs import named_inputs, passed_over
from lmtrain.data.filter.meter import Read
from lmtrain.data.filter.mixing import LEFT_OUT, Kept, mixed, require_one_column, taken_of
from lmtrain.data.filter.output import claimed, clear, disk_problems
from lmtrain.data.filter.packing import Packer, as_text, schema_from
from lmtrain.data.filter.pool import run_tasks
from lmtrain.data.filter.progress import Progress
from lmtrain.data.filter.report import Report, keeps_nothing, report_of
from lmtrain.data.filter.rules import Rules
from lmtrain.data.filter.segment import SEGMENT, Job, Segment
from lmtrain.data.filter.settings import settings_of
from lmtrain.data.filter.shards import Format, Shard, Spool, spool_path
from lmtrain.data.filter.state import FOLDER, State
from lmtrain.data.filter.tables_agree import columns_of
from lmtrain.data.filter.tasks import Input, Task, all_tables, files_of, tasks_of
from lmtrain.data.named_text import reading_of
from lmtrain.data.sources.changes import Stamps

if TYPE_CHECKING:
    import pyarrow as pa

    from lmtrain.data.filter.duplicates import Duplicates

_CHECKPOINT = 5.0  # seconds
_ALONE = 2  # segments; less is done before other processes have started
_PACKING = 2  # shards that may wait to be packed


def filter_corpus(options: FilterOptions, *, say: Say = silent, segment_bytes: int = SEGMENT) -> Report:
    """Filter as the options say; what is kept is handed on every ``segment_bytes`` that were read.

    Raises :class:`~lmtrain.core.errors.UserError`, and :class:`Interrupted` when asked to stop.
    """
    rules = Rules.of(options)
    reading = reading_of(options)
    bands = None
    if options.deduplicate == "near":
        from lmtrain.data.duplicates.bands import Bands, minhash

        minhash()
        bands = Bands.for_threshold(options.near_threshold)
    mix = Mix.of(options.mix)
    inputs = named_inputs(options, reading, mix)
    tables = all_tables(inputs) and mix is None  # a mix is made of lines
    form: Format = ("parquet" if tables else "jsonl.zst") if options.format == "auto" else options.format
    arrow = tables and form == "parquet"
    job = Job(rules, reading, "arrow" if arrow else "lines", options.deduplicate != "none", bands, segment_bytes)
    output = user_path(options.output or "")
    with claimed(output):
        settings, files = settings_of(options, job, form), [list(entry) for entry in files_of(inputs)]
        state = None if options.overwrite else State.load(output / FOLDER)
        if state is None:
            state = State(settings, files, [passed_over(each, say) for each in inputs], spans=[0 for _ in inputs])
        else:
            state.require(settings, files, output)
            if state.finished:
                say("filter", f"finished before: {output} holds the result; --overwrite begins anew")
                return dict(read_json(output / FOLDER / "report.json"))
        schema = columns_of(inputs, arrow=arrow)
        tasks = tasks_of(inputs, job, path_column=options.path_column)
        if mix:
            require_one_column(tasks, mix)
        if options.overwrite:  # not before it is known that something new can be made
            clear(output)
        with disk_problems(output):
            return _Filter(options, job, inputs, tasks, form, schema, state, output, say, mix).run()


class _Filter:
    """The process that writes."""

    def __init__(
        self, options: FilterOptions, job: Job, inputs: Sequence[Input], tasks: Sequence[Task], form: Format,
        schema: pa.Schema | None, state: State, output: Path, say: Say, mix: Mix | None,
    ) -> None:  # fmt: skip
        self._options, self._job, self._inputs, self._tasks, self._form = options, job, inputs, tasks, form
        self._state, self._output, self._say, self._mix = state, output, say, mix
        self._folder = output / FOLDER
        self._kept: Kept | None = None
        schema = schema if schema is not None else schema_from(state.schema)
        self._packer = Packer(self._folder, output, job.spooled, form, schema)
        self._total = state.total
        self._began = time.monotonic()
        self._seconds_before = state.seconds
        self._saved = self._began
        self._processes = 1
        whole = sum(task.size for task in tasks)
        if whole > _ALONE * job.segment_bytes:
            self._processes = options.num_proc or cores()

    def run(self) -> Report:
        state, tasks = self._state, self._tasks
        if state.task:
            self._say("filter", f"goes on behind {counted(self._total.seen.documents, 'document')}, "
                                f"{amount(self._total.seen.bytes, 'B')}")  # fmt: skip
        for left in [*self._output.glob(".part-*.tmp"), *self._folder.glob("*.segments"), *self._folder.glob(".*.tmp")]:
            left.unlink()
        done = sum(task.size for task in tasks[: state.task])
        with ExitStack() as stack:
            stop = stack.enter_context(Stop(say=silent).listening())
            stack.enter_context(stop.deferred())
            stack.callback(self._packer.close)
            self._spool = Spool(self._folder, self._job.spooled, len(state.shards), state.bytes)
            stack.callback(self._spool.close)
            if self._mix:
                self._kept = Kept(self._folder / "kept", state.spans, self._total.kept.documents)
                stack.callback(self._kept.close)
            self._duplicates = self._opened_duplicates(stack)
            for shard in state.shards[state.packed :]:
                self._packer.add(shard)
            progress = stack.enter_context(Progress(sum(task.size for task in tasks), done, self._say))

            def pause() -> None:
                if stop.asked:
                    raise Interrupted(stop.reason or "")
                if time.monotonic() - self._saved > _CHECKPOINT:
                    self._checkpoint()

            def tick(read: Read) -> None:
                progress.show(read, self._total)
                pause()

            stamps = Stamps([source for each in self._inputs for source in each.sources])
            try:
                reading = run_tasks(tasks[state.task :], self._job, self._processes, self._folder, tick)
                with closing(reading):
                    for _, segments in reading:
                        self._task(segments)
                left_out = self._mixed(self._mix, self._kept, pause) if self._mix and self._kept else []
                self._close_shard()
                while self._packer.made(wait=True):
                    pass
                state.packed = len(state.shards)
            except Interrupted:
                self._checkpoint()
                raise
            if names := stamps.changed():
                self._say("attention", f"{names} changed while it was read: what is kept may be of the old text and of "
                                       "the new; --overwrite begins anew")  # fmt: skip
            return self._finish(left_out)

    def _opened_duplicates(self, stack: ExitStack) -> Duplicates | None:
        if not self._job.marked:
            return None
        from lmtrain.data.filter.duplicates import Duplicates

        state = self._state
        found = Duplicates(
            self._folder / "duplicates", self._job.spooled, self._job.bands, self._options.near_threshold,
            kept=self._total.kept.documents, removed=state.removed, samples=state.samples,
        )  # fmt: skip
        return stack.enter_context(found)

    def _task(self, segments: Iterator[Segment]) -> None:
        state = self._state
        for number, segment in enumerate(segments):
            if number < state.segment:
                continue  # was done before the filter was stopped
            if self._duplicates:
                segment = self._duplicates.left(segment)
                state.removed, state.samples = self._duplicates.removed, self._duplicates.samples
            state.accounts[segment.group] += segment.account
            self._total += segment.account
            if self._kept:
                self._kept.add(segment)
            else:
                self._write(segment.payload, segment.account.kept.documents)
            state.segment = number + 1
            if state.bytes >= self._options.shard_bytes:
                self._end_shard()
        state.task, state.segment = state.task + 1, 0

    def _write(self, payload: bytes, documents: int) -> None:
        self._spool.write(payload)
        if payload:  # the reading processes are there by then: no thread may run when they are forked
            self._packer.grow(self._spool.number)
        self._state.documents += documents
        self._state.bytes = self._spool.bytes

    def _mixed(self, mix: Mix, kept: Kept, pause: Callable[[], None]) -> list[Count]:
        """Write what the shares take of each source; what they leave out."""
        state = self._state
        taken = taken_of(state.accounts, mix)
        self._checkpoint()
        left_out = [Count(account.kept.documents, account.kept.bytes) for account in state.accounts]
        for number, (payload, counts) in enumerate(mixed(kept, state.accounts, taken, self._options.seed)):
            for count, (documents, size) in zip(left_out, counts, strict=True):
                count.add(-documents, -size)
            if number >= state.mixed:  # else it was written before the filter was stopped
                self._write(payload, sum(documents for documents, _ in counts))
                state.mixed = number + 1
                if state.bytes >= self._options.shard_bytes:
                    self._end_shard()
            pause()
        return left_out

    def _end_shard(self) -> None:
        self._spool.flush()
        self._close_shard()
        self._checkpoint()
        while len(self._packer) > _PACKING:
            self._packed(wait=True)

    def _close_shard(self) -> None:
        """Let what is in the spool become a shard. Before the state may tell of it the spool is to be flushed; at the
        end the state is saved once, when all is packed."""
        state = self._state
        if not state.documents:
            return
        shard = Shard(self._spool.number, state.documents, self._spool.bytes)
        self._spool.close()
        state.shards.append(shard)
        state.documents = state.bytes = 0
        self._spool.open(shard.number + 1)
        self._packer.add(shard)

    def _packed(self, *, wait: bool) -> None:
        """Take note of the oldest shard that was packed."""
        if shard := self._packer.made(wait=wait):
            self._state.packed = shard.number + 1
            self._save()
            spool_path(self._folder, shard.number).unlink(missing_ok=True)

    def _checkpoint(self) -> None:
        """From here the same command goes on."""
        self._packed(wait=False)
        self._save()

    def _save(self) -> None:
        for written in (self._spool, self._kept, self._duplicates):
            if written:
                written.flush()  # first: what the state tells of is on disk
        state = self._state
        state.seconds = self._seconds_before + time.monotonic() - self._began
        if self._packer.schema is not None and self._job.spooled == "lines":
            state.schema = as_text(self._packer.schema)
        state.save(self._folder)
        self._saved = time.monotonic()

    def _finish(self, left_out: Sequence[Count]) -> Report:
        """``left_out``: of a mix, what the shares leave out of each source."""
        state = self._state
        if not state.shards:
            clear(self._output)
            raise keeps_nothing(self._total)
        state.finished = True
        for account, count in zip(state.accounts, left_out, strict=bool(left_out)):
            account.kept.add(-count.documents, -count.bytes)
            account.drop(LEFT_OUT, count.documents, count.bytes)
        shards = [] if self._mix else state.shards  # duplicates are numbered as they were before it
        found = self._duplicates.report(shards, self._form) if self._duplicates else None
        state.seconds = self._seconds_before + time.monotonic() - self._began
        names = [each.name for each in self._inputs]
        report = report_of(state, names, self._output, self._form, found, self._processes)
        write_json(self._folder / "report.json", report)
        self._save()
        for path in self._folder.glob("spool-*"):
            path.unlink()
        for name in ("duplicates", "kept"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        sync_folder(self._output)
        return report
