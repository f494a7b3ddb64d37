"""Facts of three parts in a row: ``subject : relation : object | subject : relation : object``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmtrain.data.nlg.records import broken_character, opened, unusable
from lmtrain.data.sources.decoding import decode_chunks, misfit
from lmtrain.data.sources.json_values import JsonError, JsonText
from lmtrain.data.sources.opening import File
from lmtrain.data.sources.reading import Reading

_CHUNK = 1 << 20
_WORDS: dict[type, str] = {list: "a list", str: "a text", dict: "an object"}


class WrongEntryError(Exception):
    """An entry that is not of the format; the text says why."""


def linearized(triples: Sequence[Sequence[Any]]) -> str:
    """The facts as the model is given them. Raises :class:`WrongEntryError` for one that has not three parts."""
    parts = []
    for triple in triples:
        if len(triple) != 3 or not all(isinstance(part, str) for part in triple):
            raise WrongEntryError(f"a fact is subject, relation and object, three texts, and not {list(triple)!r}")
        parts.append(" : ".join(triple))
    context = " | ".join(parts)
    if why := broken_character(context):
        raise WrongEntryError(why)
    return context


@contextmanager
def _located(file: File) -> Iterator[None]:
    try:
        yield
    except JsonError as error:
        raise unusable(file, error.line, error.reason) from error
    except UnicodeDecodeError as error:
        raise misfit(file, Reading()) from error


def entries_of(
    path: str | Path, items: Callable[[JsonText], Iterator[tuple[int, Any]]]
) -> Iterator[tuple[File, int, int, Any]]:
    """The entries of a JSON file: the file, the entry's number from 1, the line it begins on, and what it is.

    ``items`` finds them in the file's text.
    """
    file = opened(path)
    with file.open() as stream, _located(file):
        text = JsonText(decode_chunks(stream, Reading(), _CHUNK))
        for number, (line, entry) in enumerate(items(text), 1):
            yield file, number, line, entry
        if text.peek():
            raise JsonError(text.line, f"{text.peek()!r} after the end of the JSON value")


def field_of(entry: Any, name: str, kind: type) -> Any:
    """A field of an entry; raises :class:`WrongEntryError` when it is not there or something else."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        raise WrongEntryError(
            f"{_WORDS[kind]} {name!r} is expected" + ("" if value is None else f", not {str(value)[:40]!r}")
        )
    return value


def text_of(entry: Any, name: str) -> str:
    """The text of a reference; raises :class:`WrongEntryError` when it is empty or broken."""
    text: str = field_of(entry, name, str)
    if not text.strip():
        raise WrongEntryError(f"the text {name!r} is empty")
    if why := broken_character(text):
        raise WrongEntryError(f"the text {name!r} holds {why}")
    return text
