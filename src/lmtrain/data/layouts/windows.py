"""Full windows of single documents."""

from __future__ import annotations

import numpy as np

from lmtrain.core.console import counted
from lmtrain.core.errors import UserError
from lmtrain.data.layouts.base import ByNumber, Documents, Ids, Row, Rows
from lmtrain.data.ledger import SplitLedger
from lmtrain.data.store import TokenStore


class Windows(Rows):
    """Each document cut into windows of ``block_size`` tokens; what does not fill one is dropped.

    ``prefix`` and ``suffix`` stand in every window, since they are what the tokenizer puts around a text::

        documents   [5 6 7 8 9]  [4]  [3 2]     prefix (1,), suffix (), block_size 3
        windows     1 5 6 | 1 7 8 | 1 3 2       dropped: 9 and 4

    The way of the Hugging Face course, chapter 7.6 (``return_overflowing_tokens``, windows of full length kept). No
    window holds two documents, and none says where a document ends. Raises :class:`UserError` where no document fills
    a window.
    """

    note: str | None = None

    def __init__(
        self,
        store: TokenStore,
        documents: np.ndarray,
        block_size: int,
        prefix: Ids = (),
        suffix: Ids = (),
        *,
        pad_id: int = 0,
    ) -> None:
        self._row = Documents(store, documents, prefix, suffix)
        self.block_size = block_size
        self.pad_id = pad_id
        self.room = self._row.room(block_size, "--block_size")
        self._counts = self._row.lengths // self.room  # (D,) windows of each document
        self._first = np.concatenate([[0], np.cumsum(self._counts)])  # (D + 1,)
        self._n = int(self._first[-1])
        if not self._n and len(self._row.documents):
            longest = int(self._row.lengths.max())
            raise UserError(
                f"none of {counted(len(self._row.documents), 'document')} fills a window of {block_size:,} tokens (the "
                f"longest has {longest:,}); use a shorter --block_size, or --chunking blocks, which joins documents",
                flag="--chunking",
            )
        self._made_of = (store, self._row.documents, block_size, tuple(prefix), tuple(suffix))
        self._settings = {"pad_id": pad_id}

    def _row_at(self, index: int) -> Row:
        row = self._row
        document = int(np.searchsorted(self._first, index, "right")) - 1
        at = (index - int(self._first[document])) * self.room
        content = row.store.document(int(row.documents[document]), at, at + self.room).astype(np.int64)
        special = np.ones(self.block_size, bool)
        special[len(row.prefix) : len(row.prefix) + self.room] = False
        return Row(np.concatenate([row.prefix, content, row.suffix]), special)

    @property
    def n_tokens(self) -> int:
        return self._n * self.block_size

    @property
    def lengths(self) -> np.ndarray:
        return np.broadcast_to(np.int64(self.block_size), (self._n,))  # takes no memory, however many there are

    @property
    def first_tokens(self) -> ByNumber:
        return ByNumber(self._n, self._first_token, ascending=self._row.in_order)

    def _first_token(self, number: np.ndarray) -> np.ndarray:
        document = np.searchsorted(self._first, number, "right") - 1
        inside = (number - self._first[document]) * self.room
        return self._row.store.starts(self._row.documents[document]) + inside

    @property
    def n_bytes(self) -> int:
        taken = np.clip(self._n - self._first[:-1], 0, self._counts)  # windows of each document
        return self._row.bytes_of(taken * self.room)

    @property
    def ledger(self) -> SplitLedger:
        specials = int(self._counts.sum()) * self._row.overhead
        return self._row.ledger(specials=specials, examples=len(self), placed=self.n_tokens)
