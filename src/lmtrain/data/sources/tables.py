"""Parquet and Arrow files, read by batches; of the columns only the text's.

pyarrow takes a third of a second to import, so nothing here does so before it must.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lmtrain.data.sources.columns import TEXT
from lmtrain.data.sources.opening import File, unpacked
from lmtrain.data.sources.records import Bad, Value

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
        self._kind = kind
        self._plain: File | None = None

    @property
    def _path(self) -> str:
        """A columnar file is read here and there, so a compressed one is unpacked to a file first."""
        if self._plain is None:
            self._plain = unpacked(self._file)
        return self._plain.path

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import pyarrow as pa

        with self._file.explained():
            try:
                yield
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the system's, not pyarrow's
                reason = str(error).splitlines()[0].rstrip(".")
                said = f" is no complete {self._kind} file: {reason}; fetch or write it again"
                raise self._file.error(said) from error

    def columns(self) -> dict[str, str]:
        with self._explained():
            if self._kind == "Parquet":
                import pyarrow.parquet as pq

                with pq.ParquetFile(self._path) as table:
                    return kinds_of(table.schema_arrow) if table.metadata.num_rows else {}
            with _arrow_reader(self._path) as (schema, batches):
                return kinds_of(schema) if any(batch.num_rows for batch in batches(None)) else {}

    def values(self, column: str) -> Iterator[tuple[int, Value]]:
        with self._explained():
            batches = self._parquet(column) if self._kind == "Parquet" else self._arrow(column)
            row = 0
            for array in batches:
                for value in texts_of(array):
                    row += 1
                    yield row, value

    def _parquet(self, column: str) -> Iterator[pa.Array]:
        import pyarrow.parquet as pq

        # One page at a time: without the buffer size pyarrow holds whole columns of a row group.
        with pq.ParquetFile(self._path, buffer_size=1 << 20, pre_buffer=False) as table:
            place = table.schema_arrow.get_field_index(column)
            leaf = _leaf_index(table.schema_arrow, place)
            for group in range(table.metadata.num_row_groups):
                meta = table.metadata.row_group(group)
                if not meta.num_rows:
                    continue
                per_row = max(1, meta.column(leaf).total_uncompressed_size // meta.num_rows)
                rows = min(_MOST_ROWS, max(1, _BATCH_BYTES // per_row))
                for batch in table.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False):
                    yield batch.column(0)

    def _arrow(self, column: str) -> Iterator[pa.Array]:
        with _arrow_reader(self._path) as (schema, batches):
            for batch in batches(schema.get_field_index(column)):
                yield from in_slices(batch.column(0))


def in_slices(array: pa.Array) -> Iterator[pa.Array]:
    """The parts of an array of which each has about :data:`_BATCH_BYTES`."""
    if len(array):
        rows = min(_MOST_ROWS, max(1, _BATCH_BYTES * len(array) // max(1, array.nbytes)))
        for start in range(0, len(array), rows):
            yield array.slice(start, rows)


def texts_of(array: pa.Array) -> list[Value]:
    """The values of a column of strings."""
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
def _arrow_reader(path: str) -> Iterator[tuple[pa.Schema, Any]]:
    """Schema and batches of an Arrow file or stream; ``batches(i)`` reads column i, ``batches(None)`` all."""
    import pyarrow as pa
    from pyarrow import ipc

    # Not memory-mapped: the pages touched would count as memory of the process, file by file.
    with pa.OSFile(path) as raw:
        is_file = raw.read(6) == b"ARROW1"
        raw.seek(0)
        schema = ipc.open_file(raw).schema if is_file else ipc.open_stream(raw).schema

        def batches(column: int | None) -> Iterator[pa.RecordBatch]:
            options = ipc.IpcReadOptions(included_fields=None if column is None else [column], use_threads=False)
            raw.seek(0)
            if is_file:
                table = ipc.open_file(raw, options=options)
                for number in range(table.num_record_batches):
                    yield table.get_batch(number)
            else:
                yield from ipc.open_stream(raw, options=options)

        yield schema, batches
