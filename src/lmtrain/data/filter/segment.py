"""A stretch of the input and what of it is kept: what reading processes hand to the one that writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lmtrain.data.filter.account import Account
from lmtrain.data.filter.rules import Rules
from lmtrain.data.sources import Reading
from lmtrain.data.sources.columns import spoken_of
from lmtrain.data.sources.decoding import misfit
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.records import Bad

if TYPE_CHECKING:
    from lmtrain.data.duplicates.bands import Bands
    from lmtrain.data.duplicates.marks import Marks

SEGMENT = 16 << 20
"""Bytes read before what is kept of them is handed on. Where segments end depends on the input alone."""

Spooled = Literal["lines", "arrow"]


@dataclass(frozen=True)
class Job:
    """What every process has to know. ``marked``: kept documents are to be compared, with ``bands`` also nearly."""

    rules: Rules
    reading: Reading
    spooled: Spooled = "lines"
    marked: bool = False
    bands: Bands | None = None
    segment_bytes: int = SEGMENT


@dataclass
class Segment:
    """The kept records of a stretch, in order.

    ``payload``: with ``spooled`` lines, a line of JSON a record; else an Arrow stream. ``lengths`` are the bytes of
    each line of the payload (none for Arrow), ``sizes`` those that the account counts, ``places`` says where each
    document was (a byte, a row or a path), ``marks`` is what equal and similar texts are known by.
    """

    group: int
    account: Account
    payload: bytes = b""
    lengths: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    marks: Marks | None = None


class Gathering:
    """Judges documents one by one and gathers a :class:`Segment`."""

    def __init__(self, job: Job, group: int) -> None:
        self._job = job
        self._judge: Callable[[str, str | None], tuple[str | None, list[str]]] = job.rules.compiled()
        self.group = group
        self.begin()

    def begin(self) -> None:
        self.account = Account()
        self._lines: list[bytes] = []
        self._sizes: list[int] = []
        self._places: list[str] = []
        self._texts: list[str] = []

    def document(self, text: str, size: int, path: str | None, place: str) -> bool:
        """Whether a document is kept; it is counted either way."""
        account = self.account
        rule, found = self._judge(text, path)
        account.seen.add(1, size)
        for keyword in found:
            account.found[keyword] += 1
        if rule is not None:
            account.drop(rule, 1, size)
            return False
        account.kept.add(1, size)
        self._sizes.append(size)
        if self._job.marked:
            self._texts.append(text)
            self._places.append(place)
        return True

    def line(self, line: bytes) -> None:
        """The record of the document just kept, without a line end."""
        self._lines.append(line)

    def bad(self, file: File, place: Callable[[], str], bad: Bad) -> None:
        """A record that cannot be read: stops, or is counted. ``place`` is worked out only when it is said."""
        if self._job.reading.on_bad_record == "skip":
            bad.count_in(self.account.skipped)
            return
        if bad.undecodable:
            raise misfit(file, self._job.reading)
        raise file.error(f"{place()}: {bad.reason}; --on_bad_record skip passes over such records and counts them")

    def segment(self, payload: bytes | None = None) -> Segment:
        """What was gathered since :meth:`begin`, which is then called."""
        lengths: list[int] = []
        if payload is None:
            lengths = [len(line) + 1 for line in self._lines]
            payload = b"\n".join([*self._lines, b""])
        marks = None
        if self._texts:
            from lmtrain.data.duplicates.marks import marks_of

            marks = marks_of(self._texts, self._job.bands)
        made = Segment(self.group, self.account, payload, lengths, self._sizes, self._places, marks)
        self.begin()
        return made


def checked_text(value: Any, column: str, reading: Reading) -> tuple[str | Bad | None, bool]:
    r"""The text of a field, and whether it had to be mended: half a surrogate pair (``"\ud83d"``) has no UTF-8."""
    if value is None:
        return None, False
    if not isinstance(value, str):
        return Bad(f"{column!r} is {spoken_of(value)}, not text"), False
    if value.isascii():
        return value, False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        if reading.encoding_errors == "replace":
            return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value), True
        return Bad(
            f"the text holds half a surrogate pair (\\u{ord(value[error.start]):04x}), which is no character "
            "(--encoding_errors replace puts U+FFFD there)"
        ), False
    return value, False
