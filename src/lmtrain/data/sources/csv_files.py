"""CSV and TSV files. Line breaks inside quotes are text and stay as they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice

from lmtrain.data.sources.columns import EMPTY, TEXT, require_apart
from lmtrain.data.sources.decoding import as_utf8
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.reading import Reading
from lmtrain.data.sources.records import PROBED, Bad, Fields, Value, bad_record

_LONGEST_FIELD = 1 << 28  # characters; more is a quote that is never closed


class CsvRows:
    """Rows of a file whose first row names the columns."""

    counts_lines = True

    def __init__(self, file: File, reading: Reading, delimiter: str | None) -> None:
        self._file = file
        self._reading = reading
        self._delimiter = delimiter
        self._header: list[str] = []
        # Bytes that do not fit the encoding are kept until it is known whether they are in the text.
        self.escapes_bytes = reading.codec == "utf-8" and reading.encoding_errors == "strict"

    def _rows(self) -> Iterator[tuple[int, list[str] | Bad]]:
        """Rows with the lines they begin on; the header is the first."""
        errors = "surrogateescape" if self.escapes_bytes else "replace"
        with self._file.open() as raw:
            text = io.TextIOWrapper(as_utf8(raw, self._reading), "utf-8", errors, newline="")
            try:
                yield from self._parsed(text)
            finally:
                if not text.closed:
                    text.detach()  # the file below is closed by its own context

    def _parsed(self, text: io.TextIOWrapper) -> Iterator[tuple[int, list[str] | Bad]]:
        lines: Iterator[str] = iter(text)
        if self._delimiter is None:
            first = next(lines, "")
            self._delimiter = delimiter_of(first)
            lines = _chained(first, lines)
        csv.field_size_limit(_LONGEST_FIELD)
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                lost = reader.line_num - line if "unexpected end of data" in str(error) else 0
                yield line, Bad(f"broken CSV ({_in_words(error)})", lost=lost)
                continue
            if row is None:
                return
            if row:
                yield line, row

    def columns(self) -> dict[str, str]:
        rows = self._rows()
        line, header = next(rows, (1, Bad("no line that names the columns")))
        if isinstance(header, Bad):
            raise bad_record(self._file, line, header, self, self._reading)
        self._header = header
        require_apart(header, self._file, f":{line}")
        found: list[list[str]] = []
        for line, row in islice(rows, PROBED):
            row = self._checked(row)
            if not isinstance(row, Bad):
                found.append(row)
            elif self._reading.on_bad_record == "fail":
                raise bad_record(self._file, line, row, self, self._reading)
        return {name: _kind(values) for name, values in zip(header, zip(*found, strict=True), strict=False)}

    def _checked(self, row: list[str] | Bad) -> list[str] | Bad:
        if isinstance(row, Bad) or len(row) == len(self._header):
            return row
        return Bad(f"{len(row)} fields, but the first line names {len(self._header)} columns")

    def values(self, column: str) -> Iterator[tuple[int, Value]]:
        place = self._header.index(column)
        rows = self._rows()
        next(rows)
        for line, row in rows:
            row = self._checked(row)
            yield line, row if isinstance(row, Bad) else row[place]

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Fields | Bad]]:
        places = {column: self._header.index(column) for column in columns}
        found = self._rows()
        next(found)
        for line, row in found:
            row = self._checked(row)
            yield line, row if isinstance(row, Bad) else {name: row[place] for name, place in places.items()}


def delimiter_of(header: str) -> str:
    """A comma, or what a header without one has instead: half the world's spreadsheets write semicolons."""
    return next((mark for mark in ",;\t|" if mark in header), ",")


def _chained(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _kind(values: tuple[str, ...]) -> str:
    filled = [value for value in values if value]
    if not filled:
        return EMPTY
    return "number" if all(map(_is_number, filled)) else TEXT


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _in_words(error: csv.Error) -> str:
    said = str(error)
    if "unexpected end of data" in said or "field larger" in said:
        return "a quote is opened and never closed"
    if "expected after" in said:
        return 'text after a closing quote; a quote inside quotes is written ""'
    return said
