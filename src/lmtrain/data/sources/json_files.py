"""JSON files: a list of records, ``{"data": [records]}``, or one record a line (JSON Lines)."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from lmtrain.data.sources.columns import kinds_in, spoken_of
from lmtrain.data.sources.decoding import as_utf8, decode_chunks
from lmtrain.data.sources.json_values import JsonError, JsonText, records_in
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.reading import Reading
from lmtrain.data.sources.records import PROBED, Bad, Fields, Value, bad_record

_CHUNK = 1 << 20


def text_of(record: Any, column: str) -> Value:
    """The text of one parsed record."""
    if isinstance(found := fields_of(record, (column,)), Bad):
        return found
    value = found[column]
    if value is None or isinstance(value, str):
        return value
    return Bad(f"{column!r} is {spoken_of(value)}, not text")


def fields_of(record: Any, columns: Sequence[str]) -> Fields | Bad:
    """Several fields of one parsed record."""
    if isinstance(record, dict):
        return {column: record.get(column) for column in columns}
    return record if isinstance(record, Bad) else Bad(f"{spoken_of(record)} where a record {{...}} is expected")


class _Json(ABC):
    """Records as they are parsed, each with the line it begins on."""

    counts_lines = True
    escapes_bytes = False

    def __init__(self, file: File, reading: Reading) -> None:
        self._file = file
        self._reading = reading

    @abstractmethod
    def _records(self) -> Iterator[tuple[int, Any]]: ...

    def columns(self) -> dict[str, str]:
        """A bad record among the first stops here if bad records stop."""
        found: list[dict[str, Any]] = []
        for row, record in islice(self._records(), PROBED):
            if isinstance(fields := fields_of(record, ()), Bad):
                if self._reading.on_bad_record == "fail":
                    raise bad_record(self._file, row, fields, self, self._reading)
            else:
                found.append(record)
        return kinds_in(found)

    def values(self, column: str) -> Iterator[tuple[int, Value]]:
        for row, record in self._records():
            if type(record) is dict:
                value = record.get(column)
                if type(value) is str:  # the usual case, without a call
                    yield row, value
                    continue
            yield row, text_of(record, column)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Fields | Bad]]:
        for row, record in self._records():
            yield row, fields_of(record, columns)


class JsonLines(_Json):
    """One record a line. A broken line does not harm the next."""

    _span: tuple[int, int] | None = None

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


class JsonValues(_Json):
    """One JSON value that holds the records. A broken place ends it, so only wrong records can be skipped."""

    def _records(self) -> Iterator[tuple[int, Any]]:
        with self._file.open() as stream:
            try:
                yield from records_in(JsonText(decode_chunks(stream, self._reading, _CHUNK)))
            except JsonError as error:
                raise self._file.error(f":{error.line}: {error.reason}") from error


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
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and not isinstance(record.get("data"), list)
