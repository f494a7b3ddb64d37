"""WebNLG challenge 2017, as JSON: facts from DBpedia and texts for them, by category.

::

    {"entries": [{"1": {"category": "Airport", "modifiedtripleset": [{"subject": …, "property": …, "object": …}],
                        "lexicalisations": [{"comment": "good", "lex": "…"}]}}, {"2": …}]}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lmtrain.data.nlg.records import Record, unusable
from lmtrain.data.nlg.triples import WrongEntryError, entries_of, field_of, linearized, text_of
from lmtrain.data.sources.json_values import JsonError, JsonText

SEEN: Final = frozenset(
    {
        "Airport", "Astronaut", "Building", "City", "ComicsCharacter", "Food", "Monument", "SportsTeam", "University",
        "WrittenWork",
    }
)  # fmt: skip
"""The categories of the training data; those of the test data that are not among them are unseen (Gardent et al.,
*The WebNLG challenge*, INLG 2017)."""


def read(path: str | Path) -> Iterator[Record]:
    """A record for each text that annotators called good, in order. Raises :class:`UserError` naming file and line."""
    for file, number, line, wrapped in entries_of(path, _entries):
        try:
            entry = field_of(wrapped, str(number), dict)
            category: str = field_of(entry, "category", str)
            facts = [
                [field_of(fact, part, str) for part in ("subject", "property", "object")]
                for fact in field_of(entry, "modifiedtripleset", list)
            ]
            context = linearized(facts)
            for text in field_of(entry, "lexicalisations", list):
                if field_of(text, "comment", str) == "good":
                    yield Record(context, text_of(text, "lex"), category in SEEN)
        except WrongEntryError as error:
            raise unusable(file, line, f"entry {number} is not one of WebNLG 2017: {error}") from error


def _entries(text: JsonText) -> Iterator[tuple[int, Any]]:
    """The items of the list ``entries``."""
    found = False
    text.take("{")
    last = text.take("}") if text.peek() == "}" else ""
    while last != "}":
        name = text.value()
        text.take(":")
        if name == "entries" and text.peek() == "[":
            found = True
            yield from text.list_items()
        else:
            text.value()
        last = text.take(",}")
    if not found:
        raise JsonError(1, "WebNLG's JSON is an object with the list 'entries'; this one has none")
