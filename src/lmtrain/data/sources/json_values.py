"""JSON read value by value from a stream of text, so that a list need not fit in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from lmtrain.data.sources.columns import kind_of

_SPACE = re.compile(r"[ \t\n\r]*")
_NEAR_END = 16  # an escape or literal cut off by the end of what is held fails at most this far before it


class JsonError(Exception):
    """``reason`` in words, and the ``line`` of the text it happened in."""

    def __init__(self, line: int, reason: str) -> None:
        self.line = line
        self.reason = reason
        super().__init__(f"line {line}: {reason}")


class JsonText:
    """A position in a text that arrives in chunks.

    Holds one chunk and one value; a value longer than what is held is tried again with twice as much, so
    reading stays linear.
    """

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self._held = ""
        self._at = 0
        self._line, self._counted = 1, 0  # the line that position `_counted` is on
        self._more = True
        self._decode = json.JSONDecoder().raw_decode

    @property
    def line(self) -> int:
        """The line of the current position, from 1."""
        self._line += self._held.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _fill(self) -> bool:
        """Hold twice as much of what is not yet read, at least a chunk more; False at the end of the text."""
        wanted, got = max(1, len(self._held) - self._at), 0
        chunks: list[str] = []
        while self._more and got < wanted:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._more = False
            else:
                chunks.append(chunk)
                got += len(chunk)
        if got:
            self._line = self.line
            self._held = "".join([self._held[self._at :], *chunks])
            self._at = self._counted = 0
        return got > 0

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the text."""
        while True:
            self._at = _SPACE.match(self._held, self._at).end()  # type: ignore[union-attr]  # matches always
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._fill():
                return ""

    def take(self, wanted: str) -> str:
        """Read one of the characters ``wanted``."""
        found = self.peek()
        if not found or found not in wanted:
            names = " or ".join(repr(character) for character in wanted)
            raise JsonError(self.line, f"{names} expected, " + (f"not {found!r}" if found else "but the file ends"))
        self._at += 1
        return found

    def value(self) -> Any:
        """Read one value."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._held, self._at)
            except json.JSONDecodeError as error:
                cut_off = error.pos >= len(self._held) - _NEAR_END or error.msg.startswith("Unterminated")
                if cut_off and self._fill():
                    continue
                line = self.line + self._held.count("\n", self._at, error.pos)
                raise JsonError(line, f"broken JSON ({error.msg.removesuffix(' at')})") from error
            except (
                RecursionError,
                ValueError,
            ) as error:  # nested too deeply; a number of thousands of digits
                raise JsonError(self.line, f"JSON that cannot be read ({error})") from error
            if self._held[end - 1] not in '"]}' and end + _NEAR_END > len(self._held) and self._fill():
                continue  # a number may go on, as 1 does in 1.5 and in 1e-05
            self._at = end
            return value

    def list_items(self) -> Iterator[tuple[int, Any]]:
        """Read a list, yielding each item and the line it begins on."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            self.peek()
            line = self.line
            yield line, self.value()
            if self.take(",]") == "]":
                return


def records_in(text: JsonText) -> Iterator[tuple[int, Any]]:
    """The records of a JSON file and the lines they begin on.

    A file is a list of records, ``{"data": [records], ...}``, or records one after another.
    """
    if text.peek() == "[":
        yield from text.list_items()
    elif text.peek() == "{":
        line = text.line
        record: dict[str, Any] = {}
        text.take("{")
        last = "}" if text.peek() == "}" and text.take("}") else ""
        while last != "}":
            if text.peek() != '"':
                raise JsonError(text.line, "broken JSON (a name in double quotes expected)")
            key = text.value()
            text.take(":")
            if key == "data" and text.peek() == "[":
                items = text.list_items()
                first = next(items, None)
                if first is None or isinstance(first[1], dict):
                    if first:
                        yield first
                    yield from items
                    while text.take(",}") == ",":  # what the list came with, such as "version"
                        text.value()
                        text.take(":")
                        text.value()
                    break
                record[key] = [first[1], *(item for _, item in items)]
            else:
                record[key] = text.value()
            last = text.take(",}")
        else:
            yield line, record
            while text.peek():
                line = text.line
                yield line, text.value()
    elif text.peek():
        line = text.line
        raise JsonError(
            line, f"one value ({kind_of(text.value())}) where records are expected: [{{...}}, ...] or {{...}}"
        )
    if text.peek():
        raise JsonError(text.line, f"{text.peek()!r} after the end of the JSON value")
