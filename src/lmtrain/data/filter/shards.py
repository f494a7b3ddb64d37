"""What is kept, first as it comes into a spool file, then shard by shard into its final form.

A spool can be cut back to any length it once had, so an interrupted filter goes on in the middle of a shard; a shard
appears whole or not at all. A shard is one zstd frame (``datasets`` and others stop reading behind the first), or a
Parquet file with row groups of about ``_ROW_GROUP`` bytes.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from lmtrain.core.errors import UserError, first_line
from lmtrain.core.files import atomic_file
from lmtrain.data.filter.tables import as_stream, from_stream

if TYPE_CHECKING:
    import pyarrow as pa

    from lmtrain.data.filter.segment import Spooled

Format = Literal["parquet", "jsonl.zst"]
_ROW_GROUP = 16 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Shard:
    """The kept documents of a stretch: ``bytes`` as they lie in the spool, ``number`` from 0."""

    number: int
    documents: int
    bytes: int

    def name(self, form: Format) -> str:
        return f"part-{self.number:05d}.{form}"


class Spool:
    """The records of the shard under way. Lines are written as they are, Arrow streams behind their length."""

    def __init__(self, folder: Path, kind: Spooled, number: int = 0, size: int = 0) -> None:
        """Goes on after the first ``size`` bytes of spool ``number``."""
        self._folder = folder
        self._kind = kind
        self.open(number, size)

    def open(self, number: int, size: int = 0) -> None:
        self.number, self.bytes = number, size
        self._file = cut_back(spool_path(self._folder, number), size)

    def write(self, payload: bytes) -> None:
        if not payload:
            return
        if self._kind == "arrow":
            self.bytes += self._file.write(len(payload).to_bytes(8, "little"))
        self.bytes += self._file.write(payload)

    def flush(self) -> None:
        """Everything on disk, also after a power cut."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def spool_path(folder: Path, number: int) -> Path:
    return folder / f"spool-{number:05d}"


def cut_back(path: Path, size: int) -> BinaryIO:
    """The file, opened behind its first ``size`` bytes; the others are dropped.

    Raises :class:`UserError` where it has fewer: cut to that length it would be filled up with zeros.
    """
    path.touch()
    file: BinaryIO = path.open("r+b")
    found = file.seek(0, os.SEEK_END)
    if found < size:
        file.close()
        raise UserError(f"{path} has {found:,} bytes, and {size:,} were written to it before the filter was stopped: "
                        "the disk has lost some; begin anew with --overwrite", flag="--output")  # fmt: skip
    file.truncate(size)
    file.seek(size)
    return file


def pack(spool: Path, target: Path, kind: Spooled, form: Format, schema: pa.Schema | None) -> None:
    """Make a shard of a spool. ``schema``: of a Parquet file; None: that of the spool's Arrow batches."""
    with spool.open("rb") as source, atomic_file(target) as stream:
        if form == "jsonl.zst":
            _pack_lines(source, stream)
        elif kind == "arrow":
            _write_parquet(_spooled_batches(source), stream, schema)
        else:
            assert schema is not None
            _write_parquet(_line_batches(source, schema), stream, schema)


def _pack_lines(source: BinaryIO, stream: BinaryIO) -> None:
    import pyarrow as pa

    with pa.CompressedOutputStream(pa.PythonFile(_StaysOpen(stream), mode="w"), "zstd") as packed:
        while chunk := source.read(_CHUNK):
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


def without(payload: bytes, kind: Spooled, lengths: list[int], keep: list[bool]) -> bytes:
    """The payload of a segment less the records that are not to be kept."""
    if kind == "lines":
        parts, at = [], 0
        for length, kept in zip(lengths, keep, strict=True):
            if kept:
                parts.append(payload[at : at + length])
            at += length
        return b"".join(parts)
    import pyarrow as pa

    batches, at = [], 0
    for batch in from_stream(payload):
        left = batch.filter(pa.array(keep[at : at + len(batch)], pa.bool_()))
        at += len(batch)
        batches += [left] if len(left) else []
    return as_stream(batches)
