"""Text files: one document each, or one a line."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lmtrain.core.console import counted
from lmtrain.core.types import Piece, Source, Tally
from lmtrain.data.sources.cutting import cut_at, pieces_of, utf8_pieces
from lmtrain.data.sources.decoding import as_utf8, byte_order_mark, decode_chunks, misfit
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.reading import Reading

INTO_FOLDERS = "name a folder itself, or end the pattern with /**"


@dataclass(slots=True)
class PassedOver:
    """Files that a folder or glob held and that were not taken; its first source has it."""

    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, folders: int, pattern: str) -> None:
        """Note that ``pattern`` matches ``folders``, which are not entered: a shell would hand them over by name, and
        then they are read."""
        if folders and "**" not in pattern:
            self.notes.append(
                f"of what {pattern!r} matches, {counted(folders, 'folder')} and what is in them are left out; "
                f"{INTO_FOLDERS}"
            )


def passed_over_by(sources: Iterable[Source]) -> Tally:
    """What the folders and globs held that ``sources`` are of and that is none of them. It belongs to the words of a
    command and not to its text: a store of the same text may be found by other words."""
    tally = Tally()
    for source in sources:
        over: PassedOver | None = getattr(source, "passed_over", None)
        if over is not None:
            tally.skipped.update(over.skipped)
            tally.notes += [note for note in over.notes if note not in tally.notes]
    return tally


@dataclass(slots=True)
class TextSource:
    """A text file."""

    file: File
    reading: Reading
    passed_over: PassedOver | None = None
    span: tuple[int, int] | None = None  # bytes from line to line, or a part of the document; see segments

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def is_bytes(self) -> bool:
        """Whether its one document is, in UTF-8, the bytes of the file but for a byte order mark."""
        reading = self.reading
        plain = self.file.compression is None and reading.codec == "utf-8" and reading.encoding_errors == "strict"
        return plain and reading.documents == "auto"

    def content_hash(self) -> str:
        return self.file.content_hash()

    def pieces(self, tally: Tally) -> Iterator[Piece]:
        tally.files += 1
        with self.file.explained():
            size = self.file.size
        tally.bytes_read += size
        found = self._lines(tally) if self.reading.documents == "lines" else self._document()
        try:
            for piece in found:
                tally.documents += piece.first
                yield piece
        except UnicodeDecodeError as error:
            raise misfit(self.file, self.reading) from error

    def _document(self) -> Iterator[Piece]:
        reading = self.reading
        exact = reading.codec == "utf-8" and reading.encoding_errors == "strict"
        if self.file.compression is None and self.span is None and self.file.is_within(reading.piece_bytes):
            data = self.file.read_all()
            mark = len(byte_order_mark(data, reading.codec))
            data = data[mark:] if mark else data
            text = data.decode(reading.codec, reading.encoding_errors)
            yield Piece(text, len(data), True, data) if exact else Piece.of(text)
            return
        with self.file.open(self.span) as stream:
            if exact:
                plain = as_utf8(stream, reading) if self._begins else stream
                yield from utf8_pieces(plain, reading.piece_bytes, first=self._begins)
                return
            chunks = decode_chunks(stream, reading, reading.piece_bytes, beginning=self._begins)
            yield from pieces_of(chunks, reading.piece_bytes, first=self._begins)

    @property
    def _begins(self) -> bool:
        return self.span is None or self.span[0] == 0

    def _lines(self, tally: Tally) -> Iterator[Piece]:
        r"""Each line a document; ``\n``, ``\r\n`` and ``\r`` end one, as in ``datasets``' text loader."""
        limit = self.reading.piece_bytes
        keep_blank = self.reading.keep_blank_lines
        end = "\n" if self.reading.keep_linebreaks else ""
        newlines = io.IncrementalNewlineDecoder(None, translate=True)
        rest, first = "", True  # the line not yet ended, and whether no piece of it was yielded
        with self.file.open(self.span) as stream:
            for chunk in decode_chunks(stream, self.reading, limit, beginning=self._begins):
                *lines, rest = (rest + newlines.decode(chunk)).split("\n")
                for line in lines:
                    if first and (keep_blank or (line and not line.isspace())):  # the usual case, without a call
                        text = line + end
                        yield Piece(text, len(text)) if text.isascii() else Piece.of(text)
                    else:
                        yield from self._line(line, True, first, tally)
                        first = True
                if len(rest) > limit and not rest.isspace() and (cut := cut_at(rest)):
                    yield Piece.of(rest[:cut], first)
                    rest, first = rest[cut:], False
            ended = bool(newlines.decode("", final=True))  # by a carriage return that was the last character
            if rest or ended or not first:
                yield from self._line(rest, ended, first, tally)

    def _line(self, text: str, ended: bool, first: bool, tally: Tally) -> Iterator[Piece]:
        if first and not self.reading.keep_blank_lines and (not text or text.isspace()):
            tally.skipped["blank line"] += 1
            return
        if ended and self.reading.keep_linebreaks:
            text += "\n"
        if text or first:
            yield Piece.of(text, first)
