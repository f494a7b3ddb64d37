"""Where a source can be entered in the middle: spans that several processes read, together the whole of it.

Spans are a function of the input alone, never of how many read them::

    bytes      0         4 M         8 M            spans of a file; a line belongs to the span it begins in
    lines      |--line--|---line---|--line--|…
    groups     0  1  2 | 3  4 | 5  6  7             spans of a Parquet file: row groups, small ones together
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from lmtrain.core.types import Piece, Source, Tally
from lmtrain.data.sources.json_files import JsonLines
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.records import RecordSource
from lmtrain.data.sources.tables import TableRows
from lmtrain.data.sources.text import TextSource

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """From ``start`` up to ``stop``: bytes of a file, or row groups of a table."""

    start: int
    stop: int


def byte_spans(size: int, step: int) -> Iterator[Span]:
    """A file of ``size`` bytes, ``step`` at a time."""
    return (Span(start, min(start + step, size)) for start in range(0, size, step))


def group_spans(sizes: Sequence[int], step: int) -> Iterator[Span]:
    """Row groups of these sizes, as many together as make ``step`` bytes."""
    start = together = 0
    for number, size in enumerate(sizes):
        together += size
        if together >= step or number == len(sizes) - 1:
            yield Span(start, number + 1)
            start, together = number + 1, 0


def first_line(stream: BinaryIO, start: int, stop: int) -> int | None:
    """Where the first line begins that begins in bytes [``start``, ``stop``); None where none does.

    The stream is left there. The first line of all begins at byte 0, before a byte order mark.
    """
    if not start:
        stream.seek(0)
        return 0
    stream.seek(start - 1)  # a line that begins before belongs to the span before
    rest = stream.readline(stop - start + 1)
    return start - 1 + len(rest) if rest.endswith(b"\n") and len(rest) <= stop - start else None


def file_of(source: Source) -> File | None:
    """The file behind a source; None where there is none, or several."""
    origin = source.file if isinstance(source, TextSource) else getattr(source, "origin", None)
    return origin if isinstance(origin, File) else None


def size_of(source: Source) -> int:
    """Bytes on disk; 1 where that is not known: a data set."""
    if (file := file_of(source)) is not None:
        with file.explained():
            return max(1, file.size)
    try:
        return max(1, Path(source.name).stat().st_size)
    except (OSError, ValueError):
        return 1


def spans_of(source: Source, step: int) -> list[tuple[Span, int]]:
    """Where ``source`` can be entered, each with its bytes on disk; none where it is read from front to back.

    Entered are plain files of UTF-8 text and of JSON Lines, at line breaks, and Parquet files at row groups.
    """
    file = file_of(source)
    if file is None or file.compression is not None or not file.in_ranges:
        return []
    size = size_of(source)
    if isinstance(source, RecordSource) and isinstance(source.records, TableRows):
        if source.records.kind != "Parquet":
            return []
        sizes = [size for size, _ in source.records.groups()]
        whole = max(1, sum(sizes))
        spans = list(group_spans(sizes, step))
        weighed = [(span, size * sum(sizes[span.start : span.stop]) // whole) for span in spans]
    elif _in_lines(source):
        weighed = [(span, span.stop - span.start) for span in byte_spans(size, step)]
    else:
        return []
    return weighed if len(weighed) > 1 else []


def _in_lines(source: Source) -> bool:
    if isinstance(source, RecordSource):
        return isinstance(source.records, JsonLines) and source.reading.codec == "utf-8"
    return isinstance(source, TextSource) and source.reading.codec == "utf-8"


@dataclass(frozen=True, slots=True)
class Part:
    """A span of a source: bytes from line to line, or row groups. The first counts the file, the others do not."""

    source: TextSource | RecordSource
    span: Span

    @classmethod
    def of(cls, source: Source, span: Span) -> Part | None:
        """The lines that begin in a span, or its row groups; None where no line begins there."""
        assert isinstance(source, TextSource | RecordSource)
        if isinstance(source, RecordSource) and isinstance(source.records, TableRows):
            return cls(source, span)
        file = file_of(source)
        assert file is not None
        with file.open() as stream:
            start = first_line(stream, span.start, span.stop)
            if start is None:
                return None
            size = size_of(source)
            return cls(source, Span(start, end_of_line(stream, span.stop, size)))

    def pieces(self, tally: Tally) -> Iterator[Piece]:
        source: TextSource | RecordSource
        if isinstance(self.source, TextSource):
            source = replace(self.source, span=(self.span.start, self.span.stop))
        else:
            source = copy(self.source)
            source.only(self.span.start, self.span.stop)
        if not self.span.start:
            yield from source.pieces(tally)
            return
        own = Tally()
        yield from source.pieces(own)
        tally.documents += own.documents
        tally.skipped.update(own.skipped)
        tally.notes += [note for note in own.notes if note not in tally.notes]


def end_of_line(stream: BinaryIO, stop: int, size: int) -> int:
    """Where the line ends that holds byte ``stop - 1``."""
    if stop >= size:
        return size
    stream.seek(at := stop - 1)
    while part := stream.readline(_CHUNK):  # one that is all of a file is not held
        at += len(part)
        if part.endswith(b"\n"):
            break
    return at
