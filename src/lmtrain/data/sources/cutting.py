"""Long texts in pieces, cut where a tokenizer is least likely to notice.

Byte-level BPE splits text into words before it looks for tokens (the expression of GPT-2 and its heirs),
and no word reaches across a single line break between two visible characters, nor from one word into the
space that begins the next. The tokenization stage proves each cut and joins what it cannot prove.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lmtrain.core.types import Piece
from lmtrain.data.sources.decoding import utf8_length

# Best first. The greedy prefix makes each find its last place in the text, in C and in linear time.
_PLACES = tuple(
    re.compile(r"(?s:.*)" + place)
    for place in (
        r"\S\n(?=\S)",  # after a line break:   first line\n|second
        r"\S(?= \S)",  # before a single space: one| two
        r"\s(?=\S)",  # after white space:      a  \t|b
    )
)


def cut_at(text: str) -> int:
    """Where to cut ``text``, which goes on; 0: nowhere (it is a lone CR). Looks in its second half."""
    half = len(text) // 2
    has_break = text.find("\n", half) >= 0  # spares the walk through half a piece that is one line
    for place in _PLACES if has_break else _PLACES[1:]:
        if (found := place.match(text, half)) and found.end() > 0:
            return found.end()
    return len(text) - text.endswith("\r")


def pieces_of(chunks: Iterable[str], size: int, *, first: bool = True) -> Iterator[Piece]:
    """One document that arrives in chunks of ``size`` bytes, as pieces of about that size.

    ``first``: it begins with them.
    """
    held = ""
    for chunk in chunks:
        if 4 * len(held) >= size and (end := cut_at(held)):
            yield Piece(held[:end], utf8_length(held[:end]), first)
            first = False
            held = held[end:]
        held += chunk
    if held:
        yield Piece(held, utf8_length(held), first)


def slices(text: str, size: int) -> Iterator[str]:
    """``text`` in chunks of ``size`` characters."""
    return (text[start : start + size] for start in range(0, len(text), size))
