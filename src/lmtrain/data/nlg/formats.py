"""The corpora by name, and one file into another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError
from lmtrain.data.nlg import dart, e2e, webnlg
from lmtrain.data.nlg.records import Record, write_records

FORMATS: Final[dict[str, Callable[[str | Path], Iterator[Record]]]] = {
    "e2e": e2e.read,
    "webnlg": webnlg.read,
    "dart": dart.read,
}


def convert(form: str, source: str | Path, target: str | Path) -> tuple[int, int]:
    """Write the records of a corpus' file as JSON lines: how many there are, and how many contexts they have.

    Raises :class:`UserError` and writes nothing when there is something wrong with the file.
    """
    contexts: set[str] = set()

    def seen() -> Iterator[Record]:
        for record in FORMATS[form](source):
            contexts.add(record.context)
            yield record
        if not contexts:
            raise UserError(f"{source}: there is no text in it")

    return write_records(user_path(str(target)), seen()), len(contexts)
