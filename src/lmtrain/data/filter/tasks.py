"""The input cut into tasks that any process can do: a function of the input alone, never of how many do it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lmtrain.core.addresses import shown
from lmtrain.core.errors import Problems, UserError
from lmtrain.core.types import Source
from lmtrain.data.filter.segment import Job
from lmtrain.data.sources import Reading, TextSource, resolve_sources
from lmtrain.data.sources.csv_files import CsvRows
from lmtrain.data.sources.json_files import JsonLines
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.paths import RECORDS_WITHOUT_TEXT
from lmtrain.data.sources.records import RecordSource
from lmtrain.data.sources.saved import Shards
from lmtrain.data.sources.segments import byte_spans, file_of, group_spans
from lmtrain.data.sources.stores import StoreSource
from lmtrain.data.sources.tables import TableRows

Form = Literal["lines", "stream", "json", "csv", "tsv", "table", "texts"]
_PATHS = ("path", "filename", "file_name", "file_path", "max_stars_repo_path")
_MOST_FILES = 4096  # small text files of one task


@dataclass(frozen=True)
class Task:
    """A stretch of the input: bytes ``start`` to ``stop`` of a file of JSON Lines, row groups of a table, else files.

    ``group`` is the number of the --source it came from, ``size`` its bytes on disk. ``first_row`` counts the rows of
    the table before it.
    """

    form: Form
    group: int
    files: tuple[File, ...]
    size: int
    column: str | None = None
    path_column: str | None = None
    start: int = 0
    stop: int = 0
    first_row: int = 0
    table: TableRows | None = None


@dataclass(frozen=True)
class Input:
    """One --source: what was typed, as it may be shown, and its sources."""

    name: str
    sources: list[Source]


def inputs_of(paths: Sequence[str], reading: Reading) -> list[Input]:
    """The sources of each path; raises :class:`UserError` with all problems."""
    problems = Problems()
    found: list[Input] = []
    for path in paths:
        with problems.collect():
            sources = resolve_sources([path], reading, flag="--source")
            _require_readable(sources)
            found.append(Input(shown(path), list(_single(sources))))
    problems.raise_if_any()
    if not found:
        raise UserError("nothing to filter is named", flag="--source")
    return found


def _require_readable(sources: Sequence[Source]) -> None:
    """A filter says of each document why it went, so no file is passed over for what its records lack."""
    for source in sources:
        if isinstance(source, StoreSource):
            raise source.without_text()
        over = getattr(source, "passed_over", None)
        if over is not None and over.skipped[RECORDS_WITHOUT_TEXT]:
            raise UserError(f"{'; '.join(over.notes)}; a filter reads all, so name the others alone", flag="--source")


def _single(sources: Sequence[Source]) -> Iterator[Source]:
    for source in sources:
        yield from source.parts if isinstance(source, Shards) else [source]


def all_tables(inputs: Sequence[Input]) -> bool:
    """Whether every source is a Parquet or Arrow file."""
    return all(
        isinstance(source, RecordSource) and isinstance(source.records, TableRows)
        for each in inputs
        for source in each.sources
    )


def files_of(inputs: Sequence[Input]) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change (ns) of every file, in order: what an interrupted filter goes on with."""
    found = []
    for each in inputs:
        for source in each.sources:
            file = _file(source)
            with file.explained():
                found.append((file.name, file.size, file.changed))
    return found


def _file(source: Source) -> File:
    file = file_of(source)
    assert file is not None  # of a data set those are the sources that it lies in
    return file


def tasks_of(inputs: Sequence[Input], job: Job, *, path_column: str | None) -> list[Task]:
    """The tasks in the order of the input. ``path_column``: where records have their paths, if a rule asks for them."""
    problems = Problems()
    found: list[Task] = []
    for group, each in enumerate(inputs):
        texts: list[File] = []
        for source in each.sources:
            if isinstance(source, TextSource):
                texts.append(replace(source.file, owned=None))
                continue
            found += _texts(group, texts, job)
            texts = []
            assert isinstance(source, RecordSource)
            with problems.collect():
                column = _path_column(source, path_column) if job.rules.language_of_file else None
                found += _records(group, source, column, job)
        found += _texts(group, texts, job)
    problems.raise_if_any()
    return found


def _texts(group: int, files: Sequence[File], job: Job) -> Iterator[Task]:
    """Text files, several small ones together."""
    together: list[File] = []
    size = 0
    for file in files:
        together.append(file)
        size += file.size
        if size >= job.segment_bytes or len(together) == _MOST_FILES:
            yield Task("texts", group, tuple(together), size)
            together, size = [], 0
    if together:
        yield Task("texts", group, tuple(together), size)


def _records(group: int, source: RecordSource, path_column: str | None, job: Job) -> Iterator[Task]:
    file = _file(source)
    chosen, records = source.choose(), source.records
    if chosen is None:
        return
    size = file.size
    task = Task("json", group, (replace(file, owned=None),), size, chosen[0], path_column)
    if isinstance(records, TableRows):
        yield from _groups(replace(task, form="table"), records, job)
    elif isinstance(records, CsvRows):
        yield replace(task, form="tsv" if file.suffix == ".tsv" else "csv")
    elif not isinstance(records, JsonLines):
        yield task
    elif file.compression or job.reading.codec != "utf-8" or not file.in_ranges:
        yield replace(task, form="stream")
    else:
        for span in byte_spans(size, job.segment_bytes):
            yield replace(task, form="lines", start=span.start, stop=span.stop, size=span.stop - span.start)


def _groups(task: Task, table: TableRows, job: Job) -> Iterator[Task]:
    """Row groups, several small ones together."""
    sizes, counts = zip(*table.groups(), strict=True)
    plain = table.plain()
    row, whole = 0, max(1, sum(sizes))
    for span in group_spans(sizes, job.segment_bytes):
        share = task.size * sum(sizes[span.start : span.stop]) // whole
        yield replace(task, start=span.start, stop=span.stop, first_row=row, size=share, table=plain)
        row += sum(counts[span.start : span.stop])


def _path_column(source: RecordSource, named: str | None) -> str:
    columns = source.records.columns()
    if named is not None and named in columns:
        return named
    known = next((name for name in _PATHS if name in columns), None)
    if named is None and known is not None:
        return known
    said = f"no column {named!r}" if named else "no column with the path of a text"
    raise UserError(
        f"{source.name} has {said}, so its language is not known; it has {', '.join(list(columns)[:12])}; "
        "name one: --path_column NAME",
        flag="--path_column" if named else "--language_of_file",
    )
