"""Values that travel from stage to stage: sources → pieces → tokens → examples → batch.

Shapes: ``B`` examples of a batch, ``T`` positions, ``V`` vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Piece:
    """A document, or a part of a long one.

    Long texts travel in pieces so that memory does not grow with a file. ``first`` is True on the piece that
    begins a document; a piece with ``first=False`` continues the document before it. ``n_bytes`` counts the
    UTF-8 bytes of ``text`` (after decoding, so it is the same for a Latin-1 file saved as UTF-8); ``utf8`` are these
    bytes where whoever made the piece had them: text that is not ASCII takes as long to encode as to tokenize.
    """

    text: str
    n_bytes: int
    first: bool = True
    utf8: bytes | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, text: str, first: bool = True) -> Piece:
        """Raises UnicodeEncodeError where ``text`` holds half a surrogate pair."""
        if text.isascii():
            return cls(text, len(text), first)
        utf8 = text.encode("utf-8")
        return cls(text, len(utf8), first, utf8)


@dataclass(slots=True)
class Tally:
    """What was read and what was passed over, counted while a source is read."""

    files: int = 0
    bytes_read: int = 0
    documents: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # reason → documents or records
    notes: list[str] = field(default_factory=list)  # lines worth telling the user, such as the column chosen


class Source(Protocol):
    """One file, data set split or stream that yields documents."""

    @property
    def name(self) -> str:
        """What to call it in messages and in the manifest."""

    def content_hash(self) -> str:
        """SHA-256 of what it holds: the same after the file was moved or touched."""

    def pieces(self, tally: Tally) -> Iterator[Piece]:
        """Yield its documents in order, and count them in ``tally``."""


@dataclass(frozen=True, slots=True)
class Examples:
    """The rows a layout makes for one batch.

    ``ids`` (B, T) int64, rows padded on the right; ``lengths`` (B,) true lengths: padding is known by length,
    never by comparing with the pad id. ``special`` (B, T) bool marks the special tokens that the layout put
    there (and the padding); ``index`` (B,) is each row's number in the layout, ``epoch`` the pass it is for.
    ``segments`` (B, T) int64, where rows hold several documents that must not see each other: their numbers, from 1
    and rising along the row; 0 is padding. ``answer`` (B, T) bool, where rows are a context and its completion: True on
    the tokens of the completion.
    """

    ids: np.ndarray
    lengths: np.ndarray
    special: np.ndarray
    index: np.ndarray
    epoch: int = 0
    segments: np.ndarray | None = None
    answer: np.ndarray | None = None
