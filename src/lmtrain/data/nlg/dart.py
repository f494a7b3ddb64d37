"""DART: facts from tables and texts for them, as JSON.

``[{"tripleset": [["Mars Hill College", "JOINED", "1973"]], "annotations": [{"source": "…", "text": "…"}]}]``
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmtrain.data.nlg.records import Record, unusable
from lmtrain.data.nlg.triples import WrongEntryError, entries_of, field_of, linearized, text_of
from lmtrain.data.sources.json_values import JsonText


def read(path: str | Path) -> Iterator[Record]:
    """A record for each annotation, in order; relations in lower case, as LoRA's format_converting_dart.py has them.

    Raises :class:`UserError` naming file and line.
    """
    for file, number, line, entry in entries_of(path, JsonText.list_items):
        try:
            facts = field_of(entry, "tripleset", list)
            context = linearized([_lower(fact) for fact in facts])
            for annotation in field_of(entry, "annotations", list):
                yield Record(context, text_of(annotation, "text"))
        except WrongEntryError as error:
            raise unusable(file, line, f"entry {number} is not one of DART: {error}") from error


def _lower(fact: object) -> list[object]:
    """The fact with its relation in lower case."""
    if not isinstance(fact, list):
        raise WrongEntryError(f"a fact is a list of subject, relation and object, and not {fact!r}")
    return [part.lower() if at == 1 and isinstance(part, str) else part for at, part in enumerate(fact)]
