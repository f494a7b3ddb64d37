"""What is read document by document: text files, and records of CSV and JSON lists. The output is JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lmtrain.core.types import Tally
from lmtrain.data.filter.segment import Gathering, Job, Segment, checked_text
from lmtrain.data.sources.csv_files import CsvRows
from lmtrain.data.sources.decoding import decode_chunks, utf8_length
from lmtrain.data.sources.json_values import JsonError, JsonText, records_in
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.records import Bad
from lmtrain.data.sources.text import TextSource

if TYPE_CHECKING:
    from lmtrain.data.filter.tasks import Task

_CHUNK = 1 << 20


def texts(task: Task, job: Job) -> Iterator[Segment]:
    """Text files, each a document (or each of its lines): records of ``text``, and for whole files their ``path``."""
    gathering = Gathering(job, task.group)
    whole = job.reading.documents == "auto"
    read = 0
    for file in task.files:
        tally = Tally()
        for text, size in _joined(TextSource(file, job.reading), tally):
            if gathering.document(text, size, file.name, file.name):
                record = {"text": text, "path": file.name} if whole else {"text": text}
                gathering.line(as_line(record))
            read += size
            if read >= job.segment_bytes:
                yield gathering.segment()
                read = 0
        gathering.account.skipped.update(tally.skipped)
    yield gathering.segment()


def _joined(source: TextSource, tally: Tally) -> Iterator[tuple[str, int]]:
    """The documents of a source in one piece, with their bytes in UTF-8."""
    parts: list[str] = []
    size = 0
    for piece in source.pieces(tally):
        if piece.first and parts:
            yield "".join(parts), size
            parts, size = [], 0
        parts.append(piece.text)
        size += piece.n_bytes
    if parts:
        yield "".join(parts), size


def records(task: Task, job: Job) -> Iterator[Segment]:
    """Records of a CSV file, or of a file with one JSON value that holds them."""
    file, column = task.files[0], task.column or ""
    gathering = Gathering(job, task.group)
    escaped = False
    if task.form == "json":
        found = _json_records(file, job)
    else:
        table = CsvRows(file, job.reading, "\t" if task.form == "tsv" else None)
        escaped = table.escapes_bytes
        found = table.rows(list(table.columns()))
    read = 0
    for row, record in found:
        value: Any = record
        if not isinstance(record, Bad):
            if escaped and any(_has_escapes(field) for field in record.values()):
                value = Bad("not in the encoding", undecodable=True)
            else:
                value, mended = checked_text(record.get(column), column, job.reading)
                record = {**record, column: value} if mended else record
        if isinstance(value, Bad):
            gathering.bad(file, lambda row=row: f":{row}", value)  # type: ignore[misc]
            continue
        if value is None:
            gathering.account.skipped["record without text"] += 1
            continue
        size = utf8_length(value)
        path = record.get(task.path_column) if task.path_column else None
        if gathering.document(value, size, path if isinstance(path, str) else None, f"{file.name}:{row}"):
            gathering.line(as_line(record))
        read += size
        if read >= job.segment_bytes:
            yield gathering.segment()
            read = 0
    yield gathering.segment()


def _json_records(file: File, job: Job) -> Iterator[tuple[int, Any]]:
    with file.open() as stream:
        try:
            for line, record in records_in(JsonText(decode_chunks(stream, job.reading, _CHUNK))):
                yield line, record if isinstance(record, dict) else Bad("no record {...}")
        except JsonError as error:
            raise file.error(f":{error.line}: {error.reason}") from error


def _has_escapes(field: Any) -> bool:
    return isinstance(field, str) and not field.isascii() and any("\udc80" <= letter <= "\udcff" for letter in field)


def as_line(record: dict[str, Any]) -> bytes:
    r"""A record as a line of JSON: letters as they are, half a surrogate pair as ``\ud83d``."""
    try:
        return json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(record).encode("ascii")
