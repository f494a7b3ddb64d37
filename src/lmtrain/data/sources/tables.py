"""Parquet and Arrow files, read by batches; of the columns only the text's.

pyarrow takes a third of a second to import, so nothing here does so before it must.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from lmtrain.core.errors import first_line
from lmtrain.data.sources.columns import TEXT, require_apart
from lmtrain.data.sources.opening import File, unpacked
from lmtrain.data.sources.records import Bad, Fields, Value

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_BYTES = 4 << 20
_MOST_ROWS = 8192


class TableRows:
    """Rows of a columnar file."""

    counts_lines = False
    escapes_bytes = False

    def __init__(self, file: File, kind: str) -> None:
        self._file = file
        self.kind = kind  # Parquet or Arrow
        self._plain: File | None = None
        self._groups: range | None = None  # None: all

    def only(self, start: int, stop: int) -> TableRows:
        """The rows of these row groups of a Parquet file."""
        part = TableRows(self._file, self.kind)
        part._plain, part._groups = self._plain, range(start, stop)
        return part

    def rows_before(self) -> int:
        """Rows of the table before those that are read here."""
        return sum(rows for _, rows in self.groups()[: self._groups.start]) if self._groups else 0

    @property
    def _path(self) -> str | BinaryIO:
        """A columnar file is read here and there, so a compressed one is unpacked to a file first; one on object
        storage is read where it lies."""
        if self._plain is None:
            self._plain = unpacked(self._file)
        return self._plain.seekable()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import pyarrow as pa

        with self._file.explained():
            try:
                yield
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the system's, not pyarrow's
                reason = first_line(error).rstrip(".")
                said = f" is no complete {self.kind} file: {reason}; fetch or write it again"
                raise self._file.error(said) from error

    def columns(self) -> dict[str, str]:
        with self._explained():
            if self.kind == "Parquet":
                import pyarrow.parquet as pq

                with pq.ParquetFile(self._path) as table:
                    schema, is_empty = table.schema_arrow, not table.metadata.num_rows
            else:
                with _arrow_reader(self._path) as (schema, batches):
                    is_empty = not any(batch.num_rows for batch in batches(None))
            require_apart(schema.names, self._file)
            return {} if is_empty else kinds_of(schema)

    def values(self, column: str) -> Iterator[tuple[int, Value]]:
        with self._explained():
            batches = self._parquet([column], self._groups) if self.kind == "Parquet" else self._arrow([column])
            row = 0
            for batch in batches:
                for value in texts_of(batch.column(0)):
                    row += 1
                    yield row, value

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Fields | Bad]]:
        with self._explained():
            batches = self._parquet(columns, self._groups) if self.kind == "Parquet" else self._arrow(columns)
            yield from rows_of(batches, columns)

    def schema(self) -> pa.Schema:
        """All columns and their types."""
        with self._explained():
            if self.kind == "Parquet":
                import pyarrow.parquet as pq

                return pq.read_schema(self._path)
            with _arrow_reader(self._path) as (schema, _):
                return schema

    def groups(self) -> list[tuple[int, int]]:
        """Bytes, unpacked, and rows of each row group of a Parquet file; an Arrow file is one group, of 0 rows."""
        if self.kind != "Parquet":
            return [(self._file.size, 0)]
        import pyarrow.parquet as pq

        with self._explained():
            meta = pq.read_metadata(self._path)
            groups = map(meta.row_group, range(meta.num_row_groups))
            return [(group.total_byte_size, group.num_rows) for group in groups]

    def batches(self, groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """Rows with all their columns, some :data:`_BATCH_BYTES` at a time, of these row groups."""
        with self._explained():
            if self.kind == "Parquet":
                names = self.schema().names
                yield from self._parquet(names, groups)
            else:
                with _arrow_reader(self._path) as (_, batches):
                    for batch in batches(None):
                        yield from in_slices(batch)

    def plain(self) -> TableRows:
        """The same table as an unpacked file of its own, for other processes; this object keeps the file."""
        where = self._path
        file = File(where, self._file.name, self._file.flag) if isinstance(where, str) else self._file
        return TableRows(file, self.kind)

    def _parquet(self, columns: Sequence[str], groups: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        # One page at a time: without the buffer size pyarrow holds whole columns of a row group.
        with pq.ParquetFile(self._path, buffer_size=1 << 20, pre_buffer=False) as table:
            schema = table.schema_arrow
            places = [schema.get_field_index(column) for column in columns]
            leaves = [leaf for at in places for leaf in range(_leaf_index(schema, at), _leaf_index(schema, at + 1))]
            for group in range(table.metadata.num_row_groups) if groups is None else groups:
                meta = table.metadata.row_group(group)
                if not meta.num_rows:
                    continue
                size = sum(meta.column(leaf).total_uncompressed_size for leaf in leaves)
                rows = min(_MOST_ROWS, max(1, _BATCH_BYTES * meta.num_rows // max(1, size)))
                yield from table.iter_batches(rows, row_groups=[group], columns=list(columns), use_threads=False)

    def _arrow(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with _arrow_reader(self._path) as (schema, batches):
            for batch in batches([schema.get_field_index(column) for column in columns]):
                yield from in_slices(batch)


def in_slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The parts of a batch of which each has about :data:`_BATCH_BYTES`."""
    if batch.num_rows:
        rows = min(_MOST_ROWS, max(1, _BATCH_BYTES * batch.num_rows // max(1, batch.nbytes)))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def rows_of(batches: Iterable[pa.RecordBatch], columns: Sequence[str]) -> Iterator[tuple[int, Fields | Bad]]:
    """Each row's number, from 1, and what it holds in these columns."""
    row = 0
    for batch in batches:
        found = [texts_of(batch.column(batch.schema.get_field_index(column))) for column in columns]
        for values in zip(*found, strict=True):
            row += 1
            bad = next((value for value in values if isinstance(value, Bad)), None)
            yield row, bad or dict(zip(columns, values, strict=True))


def texts_of(array: pa.Array) -> list[Value]:
    """The values of a column: strings, or whatever it holds."""
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        return [_text_of(scalar) for scalar in array]


def _text_of(scalar: pa.Scalar) -> Value:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return Bad(f"the text is not UTF-8 (byte 0x{error.object[error.start]:02x} at offset {error.start} of it)")


def kinds_of(schema: pa.Schema) -> dict[str, str]:
    """What the columns hold, in the words of :mod:`columns`."""
    return {field.name: _kind(field.type) for field in schema}


def _kind(kind: pa.DataType) -> str:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return TEXT
    if types.is_boolean(kind):
        return "true/false"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "list"
    if types.is_struct(kind) or types.is_map(kind):
        return "object"
    return str(kind)


def _leaf_index(schema: pa.Schema, place: int) -> int:
    """The number of a column among Parquet's leaves: a struct before it counts once a field."""

    def leaves(kind: pa.DataType) -> int:
        return sum(leaves(kind.field(i).type) for i in range(kind.num_fields)) if kind.num_fields else 1

    return sum(leaves(field.type) for field in list(schema)[:place])


@contextmanager
def _arrow_reader(path: str | BinaryIO) -> Iterator[tuple[pa.Schema, Any]]:
    """Schema and batches of an Arrow file or stream; ``batches([i])`` reads column i, ``batches(None)`` all."""
    import pyarrow as pa
    from pyarrow import ipc

    # Not memory-mapped: the pages touched would count as memory of the process, file by file.
    with pa.OSFile(path) if isinstance(path, str) else pa.PythonFile(path, mode="r") as raw:
        is_file = raw.read(6) == b"ARROW1"
        raw.seek(0)
        schema = ipc.open_file(raw).schema if is_file else ipc.open_stream(raw).schema

        def batches(columns: list[int] | None) -> Iterator[pa.RecordBatch]:
            options = ipc.IpcReadOptions(included_fields=columns, use_threads=False)
            raw.seek(0)
            if is_file:
                table = ipc.open_file(raw, options=options)
                for number in range(table.num_record_batches):
                    yield table.get_batch(number)
            else:
                yield from ipc.open_stream(raw, options=options)

        yield schema, batches
