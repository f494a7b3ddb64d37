"""What every layout offers, and the documents of a store between special tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from lmtrain.core.errors import UserError
from lmtrain.core.types import Examples
from lmtrain.data.ledger import SplitLedger
from lmtrain.data.packing import Fill
from lmtrain.data.store import TokenStore

Ids = Sequence[int]


class Layout(Protocol):
    """What a trainer reads: a map-style data set whose batches come in one go."""

    @property
    def ledger(self) -> SplitLedger:
        """Where the tokens of the chosen documents went."""

    @property
    def n_tokens(self) -> int:
        """Tokens in examples, special ones included."""

    @property
    def n_bytes(self) -> int:
        """UTF-8 bytes of text behind the tokens in examples."""

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64: tokens of each example, special ones included. It may not be written to."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...

    def __getitems__(self, indices: Sequence[int]) -> Examples: ...

    def take(self, n: int) -> Layout:
        """The first ``n`` examples."""


class Row(NamedTuple):
    """One example: ``ids`` (T,) int64, which of them are ``special`` (T,) bool, the document of each, and which of them
    are the ``answer`` (T,) bool."""

    ids: np.ndarray
    special: np.ndarray
    segments: np.ndarray | None = None
    answer: np.ndarray | None = None


class ByNumber:
    """A figure of each of ``count`` examples, worked out for those that are asked for: a large store has a billion.

    ``found[numbers]`` gives what an array of all of them would, ``np.asarray(found)`` that array. ``ascending``: no
    example's is smaller than that of the one before.
    """

    def __init__(self, count: int, of: Callable[[np.ndarray], np.ndarray], *, ascending: bool) -> None:
        self._count, self._of, self.ascending = count, of, ascending

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, numbers: np.ndarray | int) -> np.ndarray:
        return self._of(np.asarray(numbers, np.int64))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._of(np.arange(self._count)), dtype)


class Documents:
    """The chosen documents of a store between special tokens, and how to copy out a range of their row."""

    def __init__(self, store: TokenStore, documents: np.ndarray, prefix: Ids, suffix: Ids) -> None:
        self.store = store
        self.documents = np.asarray(documents, np.int64)
        self.prefix = np.asarray(prefix, np.int64)
        self.suffix = np.asarray(suffix, np.int64)
        self.lengths = store.lengths[self.documents]  # (D,) content tokens, int32: there may be many million
        self.overhead = len(self.prefix) + len(self.suffix)

    @property
    def in_order(self) -> bool:
        """Whether they come as they lie in the store."""
        return not bool((self.documents[1:] < self.documents[:-1]).any())

    def content_ids(self, which: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Ids of token ``at`` of chosen document ``which`` (equal shapes): int64."""
        return self.store.tokens[self.store.starts(self.documents[which]) + at].astype(np.int64)

    def fill(self, which: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and special marks at position ``at`` of chosen document ``which``, its special tokens
        counted."""
        at = at - len(self.prefix)
        after = at - self.lengths[which]
        special = (at < 0) | (after >= 0)
        ids = np.empty(len(at), np.int64)
        content = ~special
        ids[content] = self.content_ids(which[content], at[content])
        if len(self.prefix):
            ids[at < 0] = self.prefix[at[at < 0] + len(self.prefix)]
        if len(self.suffix):
            ids[after >= 0] = self.suffix[after[after >= 0]]
        return ids, special

    def ledger(self, *, specials: int, examples: int, placed: int, fill: Fill | None = None) -> SplitLedger:
        """The account of a layout that puts ``specials`` special tokens around these documents and ``placed`` tokens,
        special ones included, into ``examples``; the others are dropped."""
        tokens = int(self.lengths.sum())
        return SplitLedger(
            documents=len(self.documents),
            bytes=int(self.store.n_bytes[self.documents].sum()),
            tokens=tokens,
            specials=specials,
            examples=examples,
            placed=placed,
            dropped=tokens + specials - placed,
            fill=fill,
        )

    def room(self, length: int, flag: str) -> int:
        """Tokens of text in an example of ``length``; none is a :class:`UserError` about ``flag``."""
        room = length - self.overhead
        if room < 1:
            raise UserError(
                f"{length} tokens leave no room for text beside the {self.overhead} special tokens", flag=flag
            )
        return room

    def bytes_of(self, covered: np.ndarray) -> int:
        """UTF-8 bytes behind the first ``covered`` content tokens of each document (of the first ones, if
        fewer).

        Exact for whole documents; of a part its share of the document's bytes, as the store does not keep
        where each token's text begins.
        """
        sizes, lengths = self.store.n_bytes[self.documents[: len(covered)]], self.lengths[: len(covered)]
        part = covered < lengths
        share = np.rint(sizes[part] * (covered[part] / lengths[part]))
        return int(sizes[~part].sum()) + int(share.sum())


def store_of(layout: Any) -> TokenStore | None:
    """The one store that a layout of documents looks into; None for pairs and for several layouts as one."""
    row = getattr(layout, "_row", None)
    return row.store if isinstance(row, Documents) else None


def examples_of(rows: list[Row], indices: Sequence[int], pad_id: int, width: int = 0) -> Examples:
    """The rows of a batch, padded to the longest of them, or to ``width``."""
    lengths = np.array([len(row.ids) for row in rows], np.int64)
    width = max(width, int(lengths.max(initial=0)))
    ids = np.full((len(rows), width), pad_id, np.int64)
    special = np.ones((len(rows), width), bool)
    segments = np.zeros((len(rows), width), np.int64) if rows and rows[0].segments is not None else None
    answer = np.zeros((len(rows), width), bool) if rows and rows[0].answer is not None else None
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        special[number, : len(row.ids)] = row.special
        if segments is not None and row.segments is not None:
            segments[number, : len(row.ids)] = row.segments
        if answer is not None and row.answer is not None:
            answer[number, : len(row.ids)] = row.answer
    return Examples(ids, lengths, special, np.asarray(indices, np.int64), segments=segments, answer=answer)


class Shortened:
    """A layout whose first examples can be taken, and that pickles as what it is made of (its store as a path)."""

    _made_of: tuple[Any, ...]
    _settings: dict[str, Any]
    _n: int

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._made_of, self._settings, self._n)

    def __len__(self) -> int:
        return self._n

    def take(self, n: int) -> Self:
        """The first ``n`` examples."""
        return _rebuild(type(self), self._made_of, self._settings, min(n, self._n))


_AnyShortened = TypeVar("_AnyShortened", bound=Shortened)


def _rebuild(kind: type[_AnyShortened], made_of: tuple[Any, ...], settings: dict[str, Any], n: int) -> _AnyShortened:
    """A layout of the same documents that ends after ``n`` examples."""
    layout = kind(*made_of, **settings)
    layout._n = min(n, layout._n)
    return layout


class Rows(Shortened):
    """A layout that makes its examples one by one. Batches are padded to their longest example, or to ``pad_to``."""

    pad_id: int
    pad_to = 0

    def _row_at(self, index: int) -> Row:
        """Example ``index``, which there is."""
        raise NotImplementedError

    def _example(self, index: int) -> Row:
        if not 0 <= index < self._n:
            raise IndexError(f"example {index} of {self._n}")
        return self._row_at(index)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """By itself, as other people's collators read it."""
        row = self._example(int(index))
        item = {"input_ids": row.ids, "special_tokens_mask": row.special.astype(np.int64)}
        return item if row.answer is None else {**item, "completion_mask": row.answer.astype(np.int64)}  # TRL's name

    def __getitems__(self, indices: Sequence[int]) -> Examples:
        return examples_of([self._example(int(i)) for i in indices], indices, self.pad_id, self.pad_to)
