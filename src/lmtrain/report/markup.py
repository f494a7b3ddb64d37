"""HTML in which text cannot become markup: everything is escaped but what was built here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

_EMPTY: Final = frozenset({"br", "col", "hr", "input", "meta", "wbr"})
_MOST_ROWS: Final = 400


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, *content: str | None, **attributes: str | int | bool | None) -> Markup:
    """An element with its content, in which plain strings are escaped and None is left out.

    Attributes: ``class_`` and ``for_`` for Python's own words, ``data_step`` for ``data-step``, True for one without a
    value; None and False are left out.

    >>> element("td", "a < b", class_="number")
    '<td class="number">a &lt; b</td>'
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        words.append(label if value is True else f'{label}="{escape(str(value))}"')
    opening = f"<{' '.join(words)}>"
    return Markup(opening if name in _EMPTY else f"{opening}{joined(*content)}</{name}>")


def joined(*content: str | None) -> Markup:
    """Pieces one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in content if part is not None))


def table(head: Sequence[Markup], body: Sequence[Markup], kind: str) -> Markup:
    """A table of rows, in a box of its own that scrolls sideways where the screen is narrow."""
    return element(
        "div",
        element("table", element("thead", *head) if head else None, element("tbody", *body), class_=kind),
        class_="scroll",
    )


def at_most(rows: Sequence[Markup]) -> list[Markup]:
    """As many rows as a page can hold."""
    if len(rows) <= _MOST_ROWS:
        return list(rows)
    return [*rows[:_MOST_ROWS], element("tr", element("td", f"and {len(rows) - _MOST_ROWS:,} more", colspan=5))]


def folded(title: str, content: Markup, key: str) -> Markup:
    """Behind its title; ``key`` names it, so that what a reader has opened stays so when the page is refreshed."""
    return element("details", element("summary", title), content, data_key=key)
