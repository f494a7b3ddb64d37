"""Scores of generated texts beside published ones: the table of a data-to-text recipe, whose trainings are the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmtrain.report.log import listed, mapping
from lmtrain.report.markup import Markup, element, joined, table
from lmtrain.report.reading import Run, scrubbed


def scores(runs: Sequence[Run]) -> Markup:
    """A table for each recipe that some of ``runs`` are trainings of."""
    by_recipe = {run.path.resolve().parent: run.scores for run in runs if run.scores}
    several = len(by_recipe) > 1
    return joined(*(_of_a_recipe(found, folder.name if several else None) for folder, found in by_recipe.items()))


def _of_a_recipe(found: Mapping[str, Any], name: str | None) -> Markup:
    columns = [str(column) for column in listed(found.get("columns"))]
    head = element("tr", element("th", ""), *(element("th", column, class_="number") for column in columns))
    body = [
        element(
            "tr",
            element("th", scrubbed(str(row.get("name", ""))), scope="row"),
            *map(_cell, listed(row.get("cells")), listed(row.get("below")) or [""] * len(columns)),
            class_=str(row.get("kind", "")),
        )
        for row in map(mapping, listed(found.get("rows")))
    ]
    notes = [element("p", scrubbed(str(note)), class_="note") for note in listed(found.get("notes"))]
    return element("div", element("h3", name) if name else None, table([head], body, "scored"), *notes)


def _cell(text: Any, below: Any) -> Markup:
    """A score, and its interval under it."""
    under = joined(element("br"), element("span", str(below), class_="faint")) if below else None
    return element("td", str(text), under, class_="number")
