"""Equal blocks of the documents in a row."""

from __future__ import annotations

import numpy as np

from lmtrain.data.layouts.base import ByNumber, Documents, Ids, Row, Rows
from lmtrain.data.ledger import SplitLedger
from lmtrain.data.store import TokenStore


class Blocks(Rows):
    """The documents in a row, cut into blocks of ``block_size`` tokens.

    What does not fill a block is dropped, at most once per split; with ``drop_remainder=False`` it is a short
    block, and a text shorter than one block is always one short block (``note`` says so). ``group_batch``:
    cut the row anew after so many documents and drop what is left of each group, as the scripts' ``map`` does
    with its batches of 1,000 rows. ``isolate_documents``: the examples say which tokens belong to one document
    (``Examples.segments``), so that a model can be kept from looking across; which tokens are in a block does not
    change.
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
        isolate_documents: bool = False,
        pad_id: int = 0,
    ) -> None:
        if block_size < 1:
            raise ValueError(f"block_size is {block_size}; a block has at least one token")
        if group_batch is not None and group_batch < 1:
            raise ValueError(f"group_batch is {group_batch}; a group has at least one document")
        self._row = Documents(store, documents, prefix, suffix)
        self.block_size = block_size
        self.isolate_documents = isolate_documents
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
        self._settings = {
            "drop_remainder": drop_remainder,
            "group_batch": group_batch,
            "isolate_documents": isolate_documents,
            "pad_id": pad_id,
        }

    def _range(self, index: int) -> tuple[int, int]:
        """Where block ``index`` begins and ends in the row."""
        group = int(np.searchsorted(self._first_block, index, "right")) - 1
        inside = (index - int(self._first_block[group])) * self.block_size
        start = int(self._group_starts[group])
        return start + inside, start + min(inside + self.block_size, int(self._group_sizes[group]))

    def _row_at(self, index: int) -> Row:
        begin, end = self._range(index)
        first = int(np.searchsorted(self._starts, begin, "right")) - 1
        last = int(np.searchsorted(self._starts, end, "left"))  # exclusive
        row = self._row
        if last == first + 1:  # inside one document: most blocks of long texts
            at = begin - int(self._starts[first]) - len(row.prefix)
            if at >= 0 and at + end - begin <= row.lengths[first]:
                start = int(row.store.starts(row.documents[first : first + 1])[0]) + at
                ids = row.store.tokens[start : start + end - begin].astype(np.int64)
                return self._row_of(ids, np.zeros(end - begin, bool), np.ones(end - begin, np.int64))
        edges = np.clip(self._starts[first : last + 1], begin, end)
        which = np.repeat(np.arange(first, last), np.diff(edges))
        ids, special = row.fill(which, np.arange(begin, end) - self._starts[which])
        return self._row_of(ids, special, which - first + 1)

    def _row_of(self, ids: np.ndarray, special: np.ndarray, documents: np.ndarray) -> Row:
        return Row(ids, special, documents if self.isolate_documents else None)

    def _placed(self) -> np.ndarray:
        """(G,) tokens of each group that are in blocks: those at its beginning."""
        blocks = np.clip(self._n - self._first_block[:-1], 0, np.diff(self._first_block))
        return np.minimum(blocks * self.block_size, self._group_sizes)

    def _covered(self) -> np.ndarray:
        """(D,) positions of each document's stretch of the row, special tokens included, that are in blocks: from its
        own beginning on."""
        ends = self._group_starts + self._placed()
        group = np.searchsorted(self._group_starts, self._starts[:-1], "right") - 1
        return np.clip(ends[group] - self._starts[:-1], 0, self._row.lengths + self._row.overhead)

    @property
    def n_tokens(self) -> int:
        return int(self._placed().sum())

    @property
    def lengths(self) -> np.ndarray:
        if not self._tails:
            return np.broadcast_to(np.int64(self.block_size), (self._n,))  # takes no memory, however many there are
        lengths = np.full(int(self._first_block[-1]), self.block_size, np.int64)
        last = np.unique(self._first_block[1:] - 1)  # of each group that has a block
        last = last[last >= 0]
        lengths[last] = (self._group_sizes[self._group_sizes > 0] - 1) % self.block_size + 1
        return lengths[: self._n]

    @property
    def first_tokens(self) -> ByNumber:
        return ByNumber(self._n, self._first_token, ascending=self._row.in_order)

    def _first_token(self, number: np.ndarray) -> np.ndarray:
        group = np.searchsorted(self._first_block, number, "right") - 1
        begins = self._group_starts[group] + (number - self._first_block[group]) * self.block_size  # in the row
        document = np.searchsorted(self._starts, begins, "right") - 1
        inside = np.clip(begins - self._starts[document] - len(self._row.prefix), 0, self._row.lengths[document])
        return self._row.store.starts(self._row.documents[document]) + inside

    @property
    def n_bytes(self) -> int:
        content = np.clip(self._covered() - len(self._row.prefix), 0, self._row.lengths)
        return self._row.bytes_of(content)

    @property
    def ledger(self) -> SplitLedger:
        specials = len(self._row.documents) * self._row.overhead
        return self._row.ledger(specials=specials, examples=len(self), placed=self.n_tokens)
