"""Files of records: each record is a document, its text in one column."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from lmtrain.core.errors import UserError
from lmtrain.core.types import Piece, Tally
from lmtrain.data.sources.columns import choose_column
from lmtrain.data.sources.cutting import pieces_of, slices
from lmtrain.data.sources.decoding import misfit
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.origin import Origin
from lmtrain.data.sources.reading import Reading
from lmtrain.data.sources.text import PassedOver

_HALF_PAIR = re.compile("[\ud800-\udfff]")
PROBED = 100  # records looked at to tell what the columns hold
_SKIP = "; --on_bad_record skip passes over such records and counts them"


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that cannot be used. ``undecodable``: because its bytes are not in the encoding; ``lost``: lines after
    it that an open quote takes along, to the end of the file."""

    reason: str
    undecodable: bool = False
    lost: int = 0

    def count_in(self, skipped: Counter[str]) -> None:
        skipped["bad record"] += 1
        if self.lost:
            skipped["line after a quote that is never closed"] += self.lost


Value = str | Bad | None
Fields = dict[str, Any]


class Records(Protocol):
    """A file format. Rows have the numbers a user counts: lines of the file, or rows of a table, from 1."""

    counts_lines: bool  # a row's number is a line of the file
    escapes_bytes: bool  # bytes that do not fit the encoding arrive as U+DC80..U+DCFF (PEP 383)

    def columns(self) -> dict[str, str]:
        """The columns and what they hold (see :mod:`columns`), from the first records; empty: no records."""

    def values(self, column: str) -> Iterator[tuple[int, Value]]:
        """Each row's number and text; None where it has none."""

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Fields | Bad]]:
        """Each row's number and what it holds in these columns, whatever that is; None where it has nothing."""


def bad_record(origin: Origin, row: int, bad: Bad, records: Records, reading: Reading) -> UserError:
    """The error for a record that stops the reading."""
    if bad.undecodable and isinstance(origin, File):
        return misfit(origin, reading)
    row += before() if (before := getattr(records, "rows_before", None)) else 0
    place = f":{row}" if records.counts_lines else f": row {row}"
    return origin.error(f"{place}: {bad.reason}{_SKIP}")


class RecordSource:
    """Records of one origin; makes documents out of one column."""

    def __init__(self, origin: Origin, records: Records, reading: Reading) -> None:
        self.passed_over: PassedOver | None = None
        self.origin = origin
        self.records = records
        self.reading = reading
        self._chosen: tuple[str, str | None] | None = None

    @property
    def name(self) -> str:
        return self.origin.name

    def only(self, start: int, stop: int) -> None:
        """From now on read a part: whole lines of these bytes, or these row groups; see segments."""
        self.choose()  # as the first records of all say
        self.records = self.records.only(start, stop)  # type: ignore[attr-defined]

    def content_hash(self) -> str:
        return self.origin.content_hash()

    def choose(self) -> tuple[str, str | None] | None:
        """Look at the first records and choose the column, with a line for the user; None: no records."""
        if self._chosen is None:
            with self._located():
                kinds = self.records.columns()
            if kinds:
                self._chosen = choose_column(kinds, self.reading, self.origin)
        return self._chosen

    @contextmanager
    def _located(self) -> Iterator[None]:
        with self.origin.explained():
            try:
                yield
            except UnicodeDecodeError as error:
                if not isinstance(self.origin, File):
                    raise
                raise misfit(self.origin, self.reading) from error

    def pieces(self, tally: Tally) -> Iterator[Piece]:
        tally.files += 1
        with self.origin.explained():
            tally.bytes_read += self.origin.size or 0
        if (chosen := self.choose()) is None:
            return
        column, note = chosen
        if note and note not in tally.notes:
            tally.notes.append(note)
        with self._located():
            yield from self._documents(column, tally)

    def _documents(self, column: str, tally: Tally) -> Iterator[Piece]:
        reading = self.reading
        limit = reading.piece_bytes
        unsized = self.origin.size is None
        for row, value in self.records.values(column):
            found = self._piece(value) if isinstance(value, str) else value
            if isinstance(found, Bad):
                self._pass_over(row, found, tally)
                continue
            if found is None:
                tally.skipped["record without text"] += 1
                continue
            if unsized:
                tally.bytes_read += found.n_bytes
            if found.n_bytes > limit:
                tally.documents += 1
                yield from pieces_of(slices(found.text, limit), limit)
            elif found.n_bytes or reading.keep_blank_lines:
                tally.documents += 1
                yield found
            else:
                tally.skipped["empty record"] += 1

    def _pass_over(self, row: int, bad: Bad, tally: Tally) -> None:
        if self.reading.on_bad_record == "fail":
            raise bad_record(self.origin, row, bad, self.records, self.reading)
        bad.count_in(tally.skipped)

    def _piece(self, text: str) -> Piece | Bad:
        r"""The text as a document. JSON can write half a surrogate pair (``"\ud83d"``), which has no UTF-8."""
        try:
            return Piece.of(text)
        except UnicodeEncodeError as error:
            half = text[error.start]
        if self.records.escapes_bytes:
            return Bad("not in the encoding", undecodable=True)
        if self.reading.encoding_errors == "replace":
            return Piece.of(_HALF_PAIR.sub("\ufffd", text))
        return Bad(
            f"the text holds half a surrogate pair (\\u{ord(half):04x}), which is no character "
            "(--encoding_errors replace puts U+FFFD there)"
        )
