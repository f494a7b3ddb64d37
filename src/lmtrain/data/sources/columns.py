"""Which column of records holds the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lmtrain.core.errors import UserError
from lmtrain.data.sources.origin import Origin
from lmtrain.data.sources.reading import Reading

TEXT, EMPTY = "text", "nothing"
_NAMED_MOST = 12
_NO_TEXT = "; write each text as a string (pairs and chats are for lmtrain sft)"


class NoTextColumnError(UserError):
    """Records of which no column is known to hold the text."""


def kind_of(value: Any) -> str:
    """What a JSON value is, in the user's words."""
    if value is None:
        return EMPTY
    if isinstance(value, str):
        return TEXT
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, int | float):
        return "number"
    return "list" if isinstance(value, list) else "object"


def spoken_of(value: Any) -> str:
    """The same with its article."""
    return _spoken(kind_of(value))


def _spoken(kind: str) -> str:
    return kind if kind == EMPTY else f"{'an' if kind == 'object' else 'a'} {kind}"


def kinds_in(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Each column of the first records and what it holds, in the order of appearance."""
    kinds: dict[str, str] = {}
    for record in records:
        for name, value in record.items():
            kind = kind_of(value)
            known = kinds.get(name, EMPTY)
            if known == EMPTY:
                kinds[name] = kind
            elif kind not in (EMPTY, known):
                kinds[name] = "mixed"
    return kinds


def require_apart(names: Sequence[str], origin: Origin, place: str = "") -> None:
    """Raise :class:`UserError` where two columns have one name."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise origin.error(f"{place}: two columns are called {twice!r}; rename one")


def choose_column(kinds: Mapping[str, str], reading: Reading, origin: Origin) -> tuple[str, str | None]:
    """The column to read, and a line for the user if it was not called ``text``.

    Taking the first of several columns would train on names or paths without a word, so we ask
    (:class:`NoTextColumnError`).
    """

    def none(text: str) -> NoTextColumnError:
        return NoTextColumnError(problems=origin.error(text).problems)

    usable = (TEXT, "mixed", EMPTY)
    wanted = reading.text_column or ("text" if "text" in kinds else None)
    if wanted is not None:
        if wanted not in kinds:
            raise none(f" has no column {wanted!r}; it has {_listed(kinds)}; choose one: --text_column NAME")
        if kinds[wanted] not in usable:
            texts = [name for name, kind in kinds.items() if kind == TEXT]
            raise none(
                f" holds in column {wanted!r} {_spoken(kinds[wanted])} and not text; it has {_listed(kinds)}"
                + (_choice(texts) or _NO_TEXT)
            )
        return wanted, None
    texts = [name for name, kind in kinds.items() if kind == TEXT]
    if not texts:
        raise none(f" has no column of text; it has {_listed(kinds)}{_NO_TEXT}")
    if len(texts) == 1:
        return texts[0], f"text is read from column {texts[0]!r}, the only one that holds text"
    if reading.first_column:
        return texts[0], f"text is read from column {texts[0]!r}, the first one that holds text"
    raise none(f" has {_listed(kinds)}, and none is called 'text'" + _choice(texts))


def _listed(kinds: Mapping[str, str]) -> str:
    shown = [f"{name or '(no name)'} ({kind})" for name, kind in list(kinds.items())[:_NAMED_MOST]]
    more = [f"{len(kinds) - len(shown)} more"] if len(kinds) > len(shown) else []
    return f"the column{'s' if len(kinds) != 1 else ''} " + ", ".join(shown + more)


def _choice(texts: list[str]) -> str:
    if not texts:
        return ""
    # The last column of text rather than the first: names and paths come first, bodies last.
    return f"; choose one: --text_column {texts[-1]}"
