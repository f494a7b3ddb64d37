"""JSON Lines: stretches of a file searched as bytes; only records that may be kept are parsed, and none is rewritten.

A record is dropped without being parsed only where that is proven not to change what is kept (see
:func:`~lmtrain.data.filter.rules.in_json_bytes`) and where it at least looks like a record, ``{…}``. Whether its inside
is broken then stays unknown, as it could not have been kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from lmtrain.data.filter.rules import in_json_bytes
from lmtrain.data.filter.segment import Gathering, Job, Segment, checked_text
from lmtrain.data.sources.columns import kind_of
from lmtrain.data.sources.decoding import as_utf8, byte_order_mark
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.records import Bad
from lmtrain.data.sources.segments import first_line

if TYPE_CHECKING:
    from lmtrain.data.filter.tasks import Task

_NO_END = 1 << 62
_BLOCK = 1 << 20  # bytes searched at once: larger blocks are mapped afresh by each read, and leave the caches
_OPEN, _CLOSE, _RETURN, _LINE = b"{}\r\n"


def stretch(task: Task, job: Job) -> Iterator[Segment]:
    """The records whose lines begin in bytes [``task.start``, ``task.stop``) of a plain UTF-8 file."""
    lines = Lines(task, job)
    with task.files[0].open() as stream:
        if (at := first_line(stream, task.start, task.stop)) is None:
            return
        if not at:
            at = len(byte_order_mark(stream.read(4), "utf-8"))
            stream.seek(at)
        for block, offset in _blocks(stream, at, task.stop, job.segment_bytes):
            lines.block(block, offset)
    yield lines.segment()


def stream(task: Task, job: Job) -> Iterator[Segment]:
    """All records of a file that is packed or in another encoding, read from front to back."""
    lines, until = Lines(task, job), job.segment_bytes
    with task.files[0].open() as raw:
        for block, offset in _blocks(as_utf8(raw, job.reading), 0, _NO_END, job.segment_bytes):
            lines.block(block, offset)
            if offset + len(block) >= until:
                yield lines.segment()
                until = offset + len(block) + job.segment_bytes
    yield lines.segment()


def _blocks(stream: BinaryIO, at: int, stop: int, size: int) -> Iterator[tuple[memoryview, int]]:
    """The lines that begin in bytes [at, stop), ``size`` bytes of them at a time, and where they begin.

    ``stream`` stands at byte ``at``, where a line begins. The memory of a block is used again for the next.
    """
    buffer, held = bytearray(min(size, _BLOCK)), 0  # ``held`` bytes of a line that is not yet whole
    while at < stop:
        count = stream.readinto(memoryview(buffer)[held:])  # type: ignore[attr-defined]
        end = held + count
        if not count:
            if held:
                yield memoryview(buffer)[:held], at
            return
        whole = buffer.rfind(b"\n", held, end) + 1
        if at + whole > stop:
            whole = buffer.find(b"\n", stop - 1 - at, end) + 1
        if whole:
            yield memoryview(buffer)[:whole], at
            buffer[: end - whole] = buffer[whole:end]
        elif end == len(buffer):
            buffer = buffer + bytes(len(buffer))  # a line longer than what is held
        at, held = at + whole, end - whole


class Lines:
    """Judges whole lines of one file."""

    def __init__(self, task: Task, job: Job) -> None:
        self._file: File = task.files[0]
        self._column = task.column or ""
        self._path_column = task.path_column
        self._reading = job.reading
        self._gathering = Gathering(job, task.group)
        keywords = job.rules.keep_any
        self._pattern = in_json_bytes(keywords) if keywords else None

    def segment(self) -> Segment:
        return self._gathering.segment()

    def block(self, data: memoryview, offset: int) -> None:
        """``data`` are whole lines that begin at byte ``offset`` of the plain file."""
        bytes_ = np.frombuffer(data, dtype=np.uint8)
        ends = np.flatnonzero(bytes_ == _LINE)
        if data[-1] != _LINE:
            ends = np.append(ends, len(data))
        starts = np.concatenate(([0], ends[:-1] + 1))
        wanted = np.arange(len(starts))
        if self._pattern is not None:
            sizes = ends - starts + 1
            wanted = self._possible(data, bytes_, starts, ends)
            missed, size = len(starts) - len(wanted), int(sizes.sum() - sizes[wanted].sum())
            account = self._gathering.account
            account.seen.add(missed, size)
            account.drop("keep_any", missed, size)
        for start, end in zip(starts[wanted].tolist(), ends[wanted].tolist(), strict=True):
            self._line(bytes(data[start:end]), offset + start)

    def _possible(self, data: memoryview, bytes_: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The numbers of the lines that may be kept, or that are no record."""
        import pyarrow as pa
        from pyarrow import compute

        # a line with its end, so that an offset is both the end of one and the beginning of the next
        offsets = pa.py_buffer(np.append(starts, len(data)).astype(np.int64))
        lines = pa.Array.from_buffers(pa.large_binary(), len(starts), [None, offsets, pa.py_buffer(data)])
        found = compute.match_substring_regex(lines, self._pattern).to_numpy(zero_copy_only=False)
        last = bytes_[np.maximum(ends - 1, 0)]
        last = np.where(last == _RETURN, bytes_[np.maximum(ends - 2, 0)], last)
        odd = (bytes_[np.minimum(starts, len(data) - 1)] != _OPEN) | (last != _CLOSE)
        return np.flatnonzero(found | odd)

    def _line(self, line: bytes, offset: int) -> None:
        gathering = self._gathering
        record, mended = self._parsed(line)
        if record is None and not line.strip():
            return
        value: Any = record
        if not isinstance(record, Bad):
            if isinstance(record, dict):
                value, changed = checked_text(record.get(self._column), self._column, self._reading)
                mended = mended or changed
            else:
                value = Bad(f"a {kind_of(record)} where a record {{...}} is expected")
        if isinstance(value, Bad):
            gathering.bad(self._file, lambda: f":{self._number(offset)}", value)
        elif value is None:
            gathering.account.skipped["record without text"] += 1
        else:
            path = record.get(self._path_column) if self._path_column else None
            place = f"{self._file.name}, byte {offset}"
            if gathering.document(value, len(line) + 1, path if isinstance(path, str) else None, place):
                if mended:
                    line = json.dumps({**record, self._column: value}).encode("ascii")
                gathering.line(line.rstrip())

    def _parsed(self, line: bytes) -> tuple[Any, bool]:
        """The record, and whether bytes that are not UTF-8 had to be replaced; None for a blank line."""
        mended = False
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            if self._reading.encoding_errors == "strict":
                return Bad("not UTF-8", undecodable=True), False
            text, mended = line.decode("utf-8", "replace"), True
        try:
            return json.loads(text), mended
        except json.JSONDecodeError as error:
            if not text or text.isspace():
                return None, False
            return Bad(f"broken JSON ({error.msg.removesuffix(' at')} at character {error.colno})"), mended
        except (RecursionError, ValueError) as error:
            return Bad(f"JSON that cannot be read ({error})"), mended

    def _number(self, offset: int) -> int:
        """The number of the line that begins at a byte of the plain file."""
        number, left = 1, offset
        with self._file.open() as raw:
            text = as_utf8(raw, self._reading) if self._reading.codec != "utf-8" else raw
            while left > 0 and (data := text.read(min(left, 1 << 20))):
                number += data.count(b"\n")
                left -= len(data)
        return number
