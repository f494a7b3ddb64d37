"""Parquet and Arrow: whole columns are searched, rows are looked at only where a keyword was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmtrain.data.filter.documents import as_line
from lmtrain.data.filter.rules import in_plain_bytes
from lmtrain.data.filter.search import search_for
from lmtrain.data.filter.segment import Gathering, Job, Segment, checked_text
from lmtrain.data.sources.records import Bad
from lmtrain.data.sources.tables import texts_of

if TYPE_CHECKING:
    import pyarrow as pa

    from lmtrain.data.filter.tasks import Task


def rows(task: Task, job: Job) -> Iterator[Segment]:
    """The rows of row groups ``task.start`` to ``task.stop`` of a table."""
    assert task.table is not None and task.column is not None
    scan = _Rows(task, job)
    read = 0
    for batch in task.table.batches(range(task.start, task.stop)):
        read += scan.batch(batch)
        if read >= job.segment_bytes:
            yield scan.segment()
            read = 0
    yield scan.segment()


class _Rows:
    def __init__(self, task: Task, job: Job) -> None:
        self._task = task
        self._job = job
        self._gathering = Gathering(job, task.group)
        keywords = job.rules.keep_any
        self._search = search_for(in_plain_bytes(keywords)) if keywords else None
        self._row = task.first_row
        self._batches: list[pa.RecordBatch] = []

    def batch(self, batch: pa.RecordBatch) -> int:
        """Judge the rows of a batch; the bytes of its text."""
        import pyarrow as pa

        task, gathering, account = self._task, self._gathering, self._gathering.account
        batch = batch.cast(without_views(batch.schema))
        column = batch.column(batch.schema.get_field_index(task.column))
        data = column.cast(_plain_type(column.type)).cast(pa.large_binary())
        offsets = np.frombuffer(data.buffers()[1], np.int64)[data.offset : data.offset + len(data) + 1]
        empty = _nulls(data)
        sizes = np.where(empty, 0, np.diff(offsets))
        wanted = ~empty
        if self._search is not None:
            texts = memoryview(data.buffers()[2] or b"").cast("B")[offsets[0] : offsets[-1]]
            found = np.zeros(len(data), dtype=bool)
            found[self._search(texts, offsets - offsets[0])] = True
            missed = wanted & ~found
            wanted &= found
            account.seen.add(int(missed.sum()), int(sizes[missed].sum()))
            account.drop("keep_any", int(missed.sum()), int(sizes[missed].sum()))
        account.skipped.update({"record without text": int(empty.sum())} if empty.any() else {})
        kept = self._judged(batch, column, np.flatnonzero(wanted), sizes)
        self._row += batch.num_rows
        if kept:
            rows = batch.take(_indices(kept))
            if self._job.spooled == "arrow":
                self._batches.append(rows)
            else:
                for record in rows.to_pylist():
                    gathering.line(as_line(record))
        return int(sizes.sum())

    def _judged(self, batch: pa.RecordBatch, column: pa.Array, wanted: np.ndarray, sizes: np.ndarray) -> list[int]:
        """Which of the wanted rows are kept."""
        task, gathering = self._task, self._gathering
        kept: list[int] = []
        if not len(wanted):
            return kept
        chosen = _indices(wanted)
        paths: list[Any] = [None] * len(wanted)
        if task.path_column:
            paths = batch.column(batch.schema.get_field_index(task.path_column)).take(chosen).to_pylist()
        texts = texts_of(column.take(chosen))
        for number, text, path in zip(wanted.tolist(), texts, paths, strict=True):
            value, _ = (text, False) if isinstance(text, Bad) else checked_text(text, task.column or "",
                                                                               self._job.reading)  # fmt: skip
            row = self._row + number + 1
            if not isinstance(value, str):
                assert isinstance(value, Bad)
                gathering.bad(task.files[0], lambda row=row: f": row {row}", value)  # type: ignore[misc]
            elif gathering.document(value, int(sizes[number]), path if isinstance(path, str) else None,
                                    f"{task.files[0].name}, row {row}"):  # fmt: skip
                kept.append(number)
        return kept

    def segment(self) -> Segment:
        if self._job.spooled == "lines":
            return self._gathering.segment()
        batches, self._batches = self._batches, []
        return self._gathering.segment(as_stream(batches))


def as_stream(batches: list[pa.RecordBatch]) -> bytes:
    """Batches as the bytes of an Arrow stream; nothing for none."""
    import pyarrow as pa
    from pyarrow import ipc

    if not batches:
        return b""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def from_stream(payload: bytes | memoryview) -> Iterator[pa.RecordBatch]:
    from pyarrow import ipc

    if len(payload):
        with ipc.open_stream(payload) as reader:
            yield from reader


def _nulls(data: pa.Array) -> np.ndarray:
    valid = data.buffers()[0]
    if valid is None:
        return np.zeros(len(data), dtype=bool)
    bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")
    return bits[data.offset : data.offset + len(data)] == 0


def _indices(rows: Sequence[int] | np.ndarray) -> pa.Array:
    """Row numbers for ``take``. Arrow's ``array()``, like its ``to_numpy()``, imports pandas: a third of a second."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(np.asarray(rows, np.int64))])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the strings themselves: a dictionary's are elsewhere."""
    from pyarrow import types

    return kind.value_type if types.is_dictionary(kind) else kind


def without_views(schema: pa.Schema) -> pa.Schema:
    """The same columns, those of views as plain strings: Arrow cannot pick rows of views."""
    import pyarrow as pa

    fields = [field.with_type(pa.large_string()) if pa.types.is_string_view(field.type) else field for field in schema]
    return pa.schema(fields, schema.metadata)
