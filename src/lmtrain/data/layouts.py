"""How stored tokens become examples: views over a store, which is never copied.

``Blocks`` lays the chosen documents end to end, each between the special tokens of the layout, and cuts the
row into equal blocks::

    documents   [5 6 7]  [8]  [9 4]         prefix (), suffix (0,), block_size 4
    the row     5 6 7 0  8 0 9 4  0
    blocks     |5 6 7 0| 8 0 9 4|           dropped: the last 0

``Lines`` makes each document one example, cut to fit::

    documents   [5 6 7]  [8]                prefix (1,), suffix (2,), max_length 4
    examples    1 5 6 2                     dropped: 7
                1 8 2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from lmtrain.core.errors import UserError
from lmtrain.core.types import Examples
from lmtrain.data.ledger import SplitLedger
from lmtrain.data.store import TokenStore

Ids = Sequence[int]
_AnyLayout = TypeVar("_AnyLayout", "Blocks", "Lines")


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

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...

    def __getitems__(self, indices: Sequence[int]) -> Examples: ...

    def take(self, n: int) -> Layout:
        """The first ``n`` examples."""


class _Documents:
    """The chosen documents of a store between special tokens, and how to copy out a range of their row."""

    def __init__(self, store: TokenStore, documents: np.ndarray, prefix: Ids, suffix: Ids) -> None:
        self.store = store
        self.documents = np.asarray(documents, np.int64)
        self.prefix = np.asarray(prefix, np.int64)
        self.suffix = np.asarray(suffix, np.int64)
        self.lengths = np.asarray(store.lengths[self.documents], np.int64)  # (D,) content tokens
        self.overhead = len(self.prefix) + len(self.suffix)

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


def _examples(
    rows: list[tuple[np.ndarray, np.ndarray]], indices: Sequence[int], pad_id: int, width: int = 0
) -> Examples:
    lengths = np.array([len(ids) for ids, _ in rows], np.int64)
    width = max(width, int(lengths.max(initial=0)))
    ids = np.full((len(rows), width), pad_id, np.int64)
    special = np.ones((len(rows), width), bool)
    for row, (tokens, marks) in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        special[row, : len(tokens)] = marks
    return Examples(ids, lengths, special, np.asarray(indices, np.int64))


def _rebuild(kind: type[_AnyLayout], made_of: tuple[Any, ...], settings: dict[str, Any], n: int) -> _AnyLayout:
    """A layout of the same documents that ends after ``n`` examples."""
    layout = kind(*made_of, **settings)
    layout._n = min(n, layout._n)
    return layout


def _item(row: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    ids, special = row
    return {"input_ids": ids, "special_tokens_mask": special.astype(np.int64)}


class Blocks:
    """The documents in a row, cut into blocks of ``block_size`` tokens.

    What does not fill a block is dropped, at most once per split; with ``drop_remainder=False`` it is a short
    block, and a text shorter than one block is always one short block (``note`` says so). ``group_batch``:
    cut the row anew after so many documents and drop what is left of each group, as the scripts' ``map`` does
    with its batches of 1,000 rows.
    """

    def __init__(
        self,
        store: TokenStore,
        documents: np.ndarray,
        block_size: int,
        prefix: Ids = (),
        suffix: Ids = (),
        *,
        drop_remainder: bool = True,
        group_batch: int | None = None,
        pad_id: int = 0,
    ) -> None:
        if block_size < 1:
            raise ValueError(f"block_size is {block_size}; a block has at least one token")
        if group_batch is not None and group_batch < 1:
            raise ValueError(f"group_batch is {group_batch}; a group has at least one document")
        self._row = _Documents(store, documents, prefix, suffix)
        self.block_size = block_size
        self.pad_id = pad_id
        self.note: str | None = None
        n = len(self._row.documents)
        self._starts = np.zeros(n + 1, np.int64)  # where each document begins in the row
        np.cumsum(self._row.lengths + self._row.overhead, out=self._starts[1:])
        borders = np.append(np.arange(0, n, group_batch or max(n, 1)), n)
        self._group_starts = self._starts[borders[:-1]]
        self._group_sizes = np.diff(self._starts[borders])  # tokens of each group
        per_group = self._group_sizes // block_size
        self._tails = bool(not drop_remainder)
        total = int(self._starts[-1])
        if drop_remainder and group_batch is None and 0 < total < block_size:
            self._tails = True
            self.note = f"the text has {total:,} tokens, less than one block of {block_size:,}: it is one short block"
        if self._tails:
            per_group = -(-self._group_sizes // block_size)
        self._first_block = np.concatenate([[0], np.cumsum(per_group)])  # (G + 1,)
        self._n = int(self._first_block[-1])
        self._made_of = (store, self._row.documents, block_size, tuple(prefix), tuple(suffix))
        self._settings = {"drop_remainder": drop_remainder, "group_batch": group_batch, "pad_id": pad_id}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (Blocks, self._made_of, self._settings, self._n)  # the store pickles as its path

    def __len__(self) -> int:
        return self._n

    def take(self, n: int) -> Blocks:
        """The first ``n`` blocks."""
        return _rebuild(Blocks, self._made_of, self._settings, min(n, self._n))

    def _range(self, index: int) -> tuple[int, int]:
        """Where block ``index`` begins and ends in the row."""
        if not 0 <= index < self._n:
            raise IndexError(f"block {index} of {self._n}")
        group = int(np.searchsorted(self._first_block, index, "right")) - 1
        inside = (index - int(self._first_block[group])) * self.block_size
        start = int(self._group_starts[group])
        return start + inside, start + min(inside + self.block_size, int(self._group_sizes[group]))

    def _block(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and special marks of one block."""
        begin, end = self._range(index)
        first = int(np.searchsorted(self._starts, begin, "right")) - 1
        last = int(np.searchsorted(self._starts, end, "left"))  # exclusive
        row = self._row
        if last == first + 1:  # inside one document: most blocks of long texts
            at = begin - int(self._starts[first]) - len(row.prefix)
            if at >= 0 and at + end - begin <= row.lengths[first]:
                start = int(row.store.starts(row.documents[first : first + 1])[0]) + at
                ids = row.store.tokens[start : start + end - begin].astype(np.int64)
                return ids, np.zeros(end - begin, bool)
        edges = np.clip(self._starts[first : last + 1], begin, end)
        which = np.repeat(np.arange(first, last), np.diff(edges))
        return row.fill(which, np.arange(begin, end) - self._starts[which])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return _item(self._block(int(index)))

    def __getitems__(self, indices: Sequence[int]) -> Examples:
        return _examples([self._block(int(i)) for i in indices], indices, self.pad_id)

    def _covered(self) -> np.ndarray:
        """(D,) positions of each document's stretch of the row, special tokens included, that are in blocks.

        The blocks of a group lie at its beginning, so a document is covered from its own beginning on.
        """
        blocks = np.clip(self._n - self._first_block[:-1], 0, np.diff(self._first_block))  # (G,)
        ends = self._group_starts + np.minimum(blocks * self.block_size, self._group_sizes)
        group = np.searchsorted(self._group_starts, self._starts[:-1], "right") - 1
        return np.clip(ends[group] - self._starts[:-1], 0, self._row.lengths + self._row.overhead)

    @property
    def n_tokens(self) -> int:
        return int(self._covered().sum())

    @property
    def n_bytes(self) -> int:
        content = np.clip(self._covered() - len(self._row.prefix), 0, self._row.lengths)
        return self._row.bytes_of(content)

    @property
    def ledger(self) -> SplitLedger:
        row = self._row
        placed, total = self.n_tokens, int(self._starts[-1])
        return SplitLedger(
            documents=len(row.documents),
            bytes=int(row.store.n_bytes[row.documents].sum()),
            tokens=int(row.lengths.sum()),
            specials=len(row.documents) * row.overhead,
            examples=len(self),
            placed=placed,
            dropped=total - placed,
        )


class Lines:
    """Each document an example between its special tokens, its content cut to fit ``max_length``.

    Batches are padded to their longest example, or to ``pad_to``.
    """

    note: str | None = None

    def __init__(
        self,
        store: TokenStore,
        documents: np.ndarray,
        max_length: int,
        prefix: Ids = (),
        suffix: Ids = (),
        *,
        pad_to: int | None = None,
        pad_id: int = 0,
    ) -> None:
        self._row = _Documents(store, documents, prefix, suffix)
        self.max_length = max_length
        self.pad_to = pad_to or 0
        self.pad_id = pad_id
        room = max_length - self._row.overhead
        if room < 1:
            raise UserError(
                f"{max_length} tokens leave no room for text beside the {self._row.overhead} special tokens",
                flag="--max_seq_length",
            )
        self._kept = np.minimum(self._row.lengths, room)
        self._n = len(self._row.documents)
        self._made_of = (store, self._row.documents, max_length, tuple(prefix), tuple(suffix))
        self._settings = {"pad_to": pad_to, "pad_id": pad_id}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (Lines, self._made_of, self._settings, self._n)

    def __len__(self) -> int:
        return self._n

    def take(self, n: int) -> Lines:
        """The first ``n`` documents."""
        return _rebuild(Lines, self._made_of, self._settings, min(n, self._n))

    def _line(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < self._n:
            raise IndexError(f"line {index} of {self._n}")
        row = self._row
        content = row.store.document(int(row.documents[index]))[: int(self._kept[index])].astype(np.int64)
        special = np.ones(len(content) + row.overhead, bool)
        special[len(row.prefix) : len(row.prefix) + len(content)] = False
        return np.concatenate([row.prefix, content, row.suffix]), special

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return _item(self._line(int(index)))

    def __getitems__(self, indices: Sequence[int]) -> Examples:
        return _examples([self._line(int(i)) for i in indices], indices, self.pad_id, self.pad_to)

    @property
    def n_tokens(self) -> int:
        return int(self._kept[: self._n].sum()) + self._n * self._row.overhead

    @property
    def n_bytes(self) -> int:
        return self._row.bytes_of(self._kept[: self._n])

    @property
    def ledger(self) -> SplitLedger:
        row = self._row
        tokens, specials = int(row.lengths.sum()), len(row.documents) * row.overhead
        return SplitLedger(
            documents=len(row.documents),
            bytes=int(row.store.n_bytes[row.documents].sum()),
            tokens=tokens,
            specials=specials,
            examples=len(self),
            placed=self.n_tokens,
            dropped=tokens + specials - self.n_tokens,
        )
