"""JSON files: a list of records, ``{"data": [records]}``, or one record a line (JSON Lines)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from lmtrain.data.sources.columns import kind_of, kinds_in
from lmtrain.data.sources.decoding import as_utf8, decode_chunks
from lmtrain.data.sources.json_values import JsonError, JsonText, records_in
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.reading import Reading
from lmtrain.data.sources.records import Bad, Fields, Value, bad_record

PROBED = 100  # records looked at to tell what the columns hold
_CHUNK = 1 << 20


def text_of(record: Any, column: str) -> Value:
    """The text of one parsed record."""
    if not isinstance(record, dict):
        return Bad(f"a {kind_of(record)} where a record {{...}} is expected")
    value = record.get(column)
    if value is None or isinstance(value, str):
        return value
    return Bad(f"{column!r} is a {kind_of(value)}, not text")


def fields_of(record: Any, columns: Sequence[str]) -> Fields | Bad:
    """Several fields of one parsed record."""
    if isinstance(record, dict):
        return {column: record.get(column) for column in columns}
    return record if isinstance(record, Bad) else Bad(f"a {kind_of(record)} where a record {{...}} is expected")


class JsonLines:
    """One record a line. A broken line does not harm the next."""

    counts_lines = True
    escapes_bytes = False

    def __init__(self, file: File, reading: Reading) -> None:
        self._file = file
        self._reading = reading
        self._span: tuple[int, int] | None = None

    def only(self, start: int, stop: int) -> JsonLines:
        """Those of a plain file in these bytes, which are whole lines."""
        part = JsonLines(self._file, self._reading)
        part._span = (start, stop)
        return part

    def rows_before(self) -> int:
        """Lines of the file before those that are read here; counted only where one has to be named."""
        if self._span is None or not self._span[0]:
            return 0
        with self._file.open((0, self._span[0])) as raw:
            return sum(block.count(b"\n") for block in iter(lambda: raw.read(_CHUNK), b""))

    def _records(self) -> Iterator[tuple[int, Any]]:
        errors = self._reading.encoding_errors
        with self._file.open(self._span) as raw:
            beginning = self._span is None or self._span[0] == 0  # U+FEFF elsewhere is no byte order mark
            for number, line in enumerate(as_utf8(raw, self._reading) if beginning else raw, 1):
                try:
                    yield number, json.loads(line.decode("utf-8", errors))
                except json.JSONDecodeError as error:
                    if not line.isspace():
                        yield (
                            number,
                            Bad(f"broken JSON ({error.msg.removesuffix(' at')} at character {error.colno})"),
                        )
                except UnicodeDecodeError:
                    yield number, Bad("not UTF-8", undecodable=True)
                except (RecursionError, ValueError) as error:
                    yield number, Bad(f"JSON that cannot be read ({error})")

    def columns(self) -> dict[str, str]:
        return probe(self._file, self._records(), self, self._reading)

    def values(self, column: str) -> Iterator[tuple[int, Value]]:
        for number, record in self._records():
            if type(record) is dict:
                value = record.get(column)
                if type(value) is str:  # the usual case, without a call
                    yield number, value
                    continue
            yield number, record if isinstance(record, Bad) else text_of(record, column)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Fields | Bad]]:
        for number, record in self._records():
            yield number, fields_of(record, columns)


class JsonValues:
    """One JSON value that holds the records. A broken place ends it, so only wrong records can be skipped."""

    counts_lines = True
    escapes_bytes = False

    def __init__(self, file: File, reading: Reading) -> None:
        self._file = file
        self._reading = reading

    def _records(self) -> Iterator[tuple[int, Any]]:
        with self._file.open() as stream:
            try:
                yield from records_in(JsonText(decode_chunks(stream, self._reading, _CHUNK)))
            except JsonError as error:
                raise self._file.error(f":{error.line}: {error.reason}") from error

    def columns(self) -> dict[str, str]:
        return probe(self._file, self._records(), self, self._reading)

    def values(self, column: str) -> Iterator[tuple[int, Value]]:
        for line, record in self._records():
            yield line, text_of(record, column)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Fields | Bad]]:
        for line, record in self._records():
            yield line, fields_of(record, columns)


def probe(
    file: File, records: Iterator[tuple[int, Any]], reader: JsonLines | JsonValues, reading: Reading
) -> dict[str, str]:
    """What the columns of the first records hold. A bad record among them stops here if bad records stop."""
    found: list[dict[str, Any]] = []
    for row, record in islice(records, PROBED):
        if isinstance(record, dict):
            found.append(record)
        elif reading.on_bad_record == "fail":
            bad = record if isinstance(record, Bad) else text_of(record, "")
            raise bad_record(file, row, bad if isinstance(bad, Bad) else Bad("no record"), reader, reading)
    return kinds_in(found)


def json_reader(file: File, reading: Reading, *, lines: bool | None = None) -> JsonLines | JsonValues:
    """The reader for a file: given, or told by whether its first line is a whole record."""
    if lines is None:
        lines = _first_line_is_record(file, reading)
    return JsonLines(file, reading) if lines else JsonValues(file, reading)


def _first_line_is_record(file: File, reading: Reading) -> bool:
    with file.open() as raw:
        line = as_utf8(raw, reading).readline(_CHUNK)
    try:
        record = json.loads(line.decode("utf-8", "replace"))
    except ValueError:
        return False
    return isinstance(record, dict) and not isinstance(record.get("data"), list)
