"""Spools into shards, in a thread beside the reading.

A shard appears whole or not at all. It is one zstd frame (``datasets`` and others stop reading behind the first), made
while its spool still grows, or a Parquet file with row groups of about ``_ROW_GROUP`` bytes.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lmtrain.core.errors import UserError, first_line
from lmtrain.core.files import atomic_file
from lmtrain.data.filter.shards import Format, Shard, shard_name, spool_path
from lmtrain.data.filter.tables import from_stream

if TYPE_CHECKING:
    import pyarrow as pa

    from lmtrain.data.filter.segment import Spooled

_ROW_GROUP = 16 << 20
_CHUNK = 1 << 20
_LOOK = 0.05  # seconds between looks at a spool that grows


class Growth:
    """A spool that may still grow, as the thread sees it that packs it meanwhile: until :meth:`end`, or in vain."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._is_left = False

    def end(self) -> None:
        """All is in the file."""
        self._over.set()

    def leave(self) -> None:
        """No shard is wanted of it, unless it has ended: another process goes on with the spool."""
        self._is_left = not self._over.is_set()
        self._over.set()

    def chunks(self, source: BinaryIO) -> Iterator[bytes]:
        """What is in the file, to its end. Raises :class:`LeftError`."""
        while True:
            is_over = self._over.is_set()  # asked first: what was written before the end is read
            if self._is_left:
                raise LeftError
            if chunk := source.read(_CHUNK):
                yield chunk
            elif is_over:
                return
            else:
                self._over.wait(_LOOK)


class LeftError(Exception):
    """Nobody waits for this shard."""


class Packer:
    """Makes one shard after another. ``schema``: of a Parquet output made of lines, once that is known."""

    def __init__(self, folder: Path, output: Path, kind: Spooled, form: Format, schema: pa.Schema | None) -> None:
        """``folder`` has the spools."""
        self._folder, self._output, self._kind, self._form, self.schema = folder, output, kind, form, schema
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[Shard, Future[None]]] = []
        self._growing: tuple[Growth, Future[None]] | None = None

    def __len__(self) -> int:
        """How many shards are not known to be made."""
        return len(self._waiting)

    def grow(self, number: int) -> None:
        """Something was written to the spool of this number. From the first time on a thread is running."""
        if self._growing is None and self._form == "jsonl.zst":
            growth = Growth()
            self._growing = growth, self._thread.submit(self._make, number, growth)

    def add(self, shard: Shard) -> None:
        """A shard is complete in its spool."""
        growing, self._growing = self._growing, None
        if growing is not None:
            growing[0].end()
        packed = growing[1] if growing is not None else self._thread.submit(self._make, shard.number)
        self._waiting.append((shard, packed))

    def _make(self, number: int, growth: Growth | None = None) -> None:
        """In the thread."""
        spool = spool_path(self._folder, number)
        if self._form == "parquet" and self.schema is None:
            self.schema = schema_of(spool)
        pack(spool, self._output / shard_name(number, self._form), self._kind, self._form, self.schema, growth)

    def made(self, *, wait: bool) -> Shard | None:
        """The oldest shard that was not told of, once it is made; None where it is not. Raises what went wrong."""
        if not self._waiting or not (wait or self._waiting[0][1].done()):
            return None
        shard, packed = self._waiting.pop(0)
        packed.result()
        return shard

    def close(self) -> None:
        """What is no whole shard is left as it is: the same command goes on with it."""
        if self._growing is not None:
            self._growing[0].leave()
        self._thread.shutdown()


def pack(
    spool: Path, target: Path, kind: Spooled, form: Format, schema: pa.Schema | None, growth: Growth | None = None
) -> None:
    """Make a shard of a spool. ``schema``: of a Parquet file; None: that of the spool's Arrow batches. ``growth``: of a
    spool of lines that is packed while it is written."""
    with spool.open("rb") as source, atomic_file(target) as stream:
        if form == "jsonl.zst":
            chunks = iter(partial(source.read, _CHUNK), b"") if growth is None else growth.chunks(source)
            _pack_lines(chunks, stream)
        elif kind == "arrow":
            _write_parquet(_spooled_batches(source), stream, schema)
        else:
            assert schema is not None
            _write_parquet(_line_batches(source, schema), stream, schema)


def _pack_lines(chunks: Iterator[bytes], stream: BinaryIO) -> None:
    import pyarrow as pa

    with pa.CompressedOutputStream(pa.PythonFile(_StaysOpen(stream), mode="w"), "zstd") as packed:
        for chunk in chunks:
            packed.write(chunk)


class _StaysOpen(io.RawIOBase):
    """A stream that Arrow may close, and that is open afterwards to whoever opened it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._stream.write(data)


def _spooled_batches(source: BinaryIO) -> Iterator[pa.RecordBatch]:
    while length := source.read(8):
        yield from from_stream(source.read(int.from_bytes(length, "little")))


def _write_parquet(batches: Iterator[pa.RecordBatch], stream: BinaryIO, schema: pa.Schema | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: pq.ParquetWriter | None = None
    held: list[pa.RecordBatch] = []
    size = 0

    def write() -> None:
        nonlocal size
        if held and writer is not None:
            writer.write_table(pa.Table.from_batches(held, writer.schema), row_group_size=sum(map(len, held)))
        held.clear()
        size = 0

    for batch in batches:
        try:
            writer = writer or pq.ParquetWriter(stream, schema or batch.schema, compression="zstd")
        except pa.ArrowNotImplementedError as error:  # of an object without fields
            said = first_line(error).partition(".")[0]
            raise UserError(f"{said}; --format jsonl.zst keeps each record as it is", flag="--format") from error
        held.append(batch if batch.schema.equals(writer.schema) else batch.cast(writer.schema))
        size += batch.nbytes
        if size >= _ROW_GROUP:
            write()
    write()
    if writer is not None:
        writer.close()


def _line_batches(source: BinaryIO, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for records in _some_records(source):
        strange = next((name for record in records for name in record if schema.get_field_index(name) < 0), None)
        if strange is not None:
            raise _unlike(f"a record has the field {strange!r}, and those of the first shard have not")
        try:
            for field in schema:
                if pa.types.is_nested(field.type):
                    _require_known(records, field)
            yield pa.RecordBatch.from_pylist(records, schema=schema)
        except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
            raise _unlike(first_line(error)) from error


def _require_known(records: list[dict[str, Any]], field: pa.Field) -> None:
    """Refuse objects that hold what those of the first shard did not: Arrow would leave it out without a word."""
    import pyarrow as pa

    found = pa.field(field.name, pa.array([record.get(field.name) for record in records]).type)
    both = pa.unify_schemas([pa.schema([field]), pa.schema([found])], promote_options="permissive")
    if not both.field(0).type.equals(field.type):
        raise _unlike(f"{field.name!r} holds {found.type}, and in the first shard {field.type}")


def schema_of(spool: Path) -> pa.Schema:
    """The columns of the records of a spool of lines: wide enough for all of them; only nothing counts as text."""
    import pyarrow as pa

    schemas: list[pa.Schema] = []
    with spool.open("rb") as source:
        for records in _some_records(source):
            names = list(dict.fromkeys(name for record in records for name in record))
            try:
                types = [pa.array([record.get(name) for record in records]).type for name in names]
                more = pa.schema(list(zip(names, types, strict=True)))
                schemas = [pa.unify_schemas([*schemas, more], promote_options="permissive")]
            except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
                raise _unlike(first_line(error)) from error
    fields = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schemas[0]]
    return pa.schema(fields)


def as_text(schema: pa.Schema) -> str:
    """A schema in Arrow's own form, base64."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def schema_from(text: str | None) -> pa.Schema | None:
    """What :func:`as_text` wrote."""
    if text is None:
        return None
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _some_records(source: BinaryIO) -> Iterator[list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    size = 0
    for line in source:
        records.append(json.loads(line))
        size += len(line)
        if size >= _CHUNK:
            yield records
            records, size = [], 0
    if records:
        yield records


def _unlike(what: str) -> UserError:
    return UserError(
        f"a column of Parquet has one type, and these records do not agree on theirs ({what}); --format jsonl.zst "
        "keeps each record as it is",
        flag="--format",
    )
