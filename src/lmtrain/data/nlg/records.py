"""The records that all three corpora become: a line of JSON for each reference text.

``{"context": "name : Aroma | area : riverside", "completion": "Aroma is by the river."}``, and of WebNLG ``"cate"``:
whether the category occurs in the training data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError
from lmtrain.core.files import atomic_file
from lmtrain.core.types import Tally
from lmtrain.data.sources.opening import File, open_file
from lmtrain.data.sources.reading import Reading
from lmtrain.data.sources.text import TextSource


@dataclass(frozen=True, slots=True)
class Record:
    """A meaning and one text for it. ``seen`` (WebNLG): whether the category is one of the training data's."""

    context: str
    completion: str
    seen: bool | None = None

    def line(self) -> str:
        """As ``json.dumps`` writes it, ASCII only: what the original converters write."""
        value: dict[str, object] = {"context": self.context, "completion": self.completion}
        if self.seen is not None:
            value["cate"] = self.seen
        return json.dumps(value) + "\n"


@dataclass(slots=True)
class Group:
    """All texts for one context, in the order of the file; ``seen`` is that of the first."""

    context: str
    completions: list[str] = field(default_factory=list)
    seen: bool | None = None


def grouped(records: Iterable[Record]) -> list[Group]:
    """One group for each context, in the order in which they first occur."""
    groups: dict[str, Group] = {}
    for record in records:
        group = groups.setdefault(record.context, Group(record.context, seen=record.seen))
        group.completions.append(record.completion)
    return list(groups.values())


def opened(path: str | Path) -> File:
    """A file that the user named; compressed ones too. Raises :class:`UserError`."""
    name = str(path)
    if not user_path(name).is_file():
        raise UserError(f"no such file: {name}")
    file, head = open_file(str(user_path(name)), name, "")
    if not head:
        raise unusable(file, None, "the file is empty")
    return file


def unusable(file: File, line: int | None, reason: str) -> UserError:
    """One line that says where and why."""
    return UserError(f"{file.name}{f':{line}' if line else ''}: {reason}")


def broken_character(text: str) -> str | None:
    r"""What is wrong where JSON wrote half a surrogate pair (``"\ud83d"``), which has no UTF-8; None elsewhere."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"half a surrogate pair (\\u{ord(text[error.start]):04x}), which is no character"
    return None


def lines_of(file: File) -> Iterator[tuple[int, str]]:
    """The lines of a text in UTF-8 and their numbers, from 1; ``\\n``, ``\\r\\n`` and ``\\r`` end one."""
    source = TextSource(file, Reading(documents="lines", keep_blank_lines=True))
    held = ""
    number = 0
    for piece in source.pieces(Tally()):
        if piece.first and number:
            yield number, held
        number += piece.first
        held = piece.text if piece.first else held + piece.text
    if number:
        yield number, held


def read_records(path: str | Path) -> list[Record]:
    """The records of a file of JSON lines. Raises :class:`UserError` naming file and line."""
    file = opened(path)
    found = []
    for number, line in lines_of(file):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise unusable(file, number, f"broken JSON ({error})") from error
        if not isinstance(value, dict) or not all(isinstance(value.get(k), str) for k in ("context", "completion")):
            raise unusable(file, number, 'not a record {"context": "text", "completion": "text"}')
        if not value["completion"].strip():
            raise unusable(file, number, "the completion is empty")
        if why := broken_character(value["context"] + value["completion"]):
            raise unusable(file, number, why)
        seen = value.get("cate")
        found.append(Record(value["context"], value["completion"], seen if isinstance(seen, bool) else None))
    if not found:
        raise unusable(file, None, "there is no record in it")
    return found


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write them as JSON lines, whole or not at all; how many there were."""
    count = 0
    with atomic_file(path) as stream:
        for count, record in enumerate(records, 1):  # noqa: B007 -- the last number is the count
            stream.write(record.line().encode("ascii"))
    return count
