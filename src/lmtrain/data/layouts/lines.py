"""Each document an example."""

from __future__ import annotations

import numpy as np

from lmtrain.data.layouts.base import ByNumber, Documents, Ids, Row, Rows
from lmtrain.data.ledger import FILL_BATCH, SplitLedger
from lmtrain.data.packing import fill
from lmtrain.data.store import TokenStore


class Lines(Rows):
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
        self._row = Documents(store, documents, prefix, suffix)
        self.max_length = max_length
        self.pad_to = pad_to or 0
        self.pad_id = pad_id
        self._kept = np.minimum(self._row.lengths, self._row.room(max_length, "--max_seq_length"))
        self._n = len(self._row.documents)
        self._made_of = (store, self._row.documents, max_length, tuple(prefix), tuple(suffix))
        self._settings = {"pad_to": pad_to, "pad_id": pad_id}

    def _row_at(self, index: int) -> Row:
        row = self._row
        content = row.store.document(int(row.documents[index]), 0, int(self._kept[index])).astype(np.int64)
        special = np.ones(len(content) + row.overhead, bool)
        special[len(row.prefix) : len(row.prefix) + len(content)] = False
        return Row(np.concatenate([row.prefix, content, row.suffix]), special)

    @property
    def n_tokens(self) -> int:
        return int(self._kept[: self._n].sum()) + self._n * self._row.overhead

    @property
    def lengths(self) -> np.ndarray:
        return self._kept[: self._n] + self._row.overhead

    @property
    def first_tokens(self) -> ByNumber:
        row = self._row
        return ByNumber(self._n, lambda number: row.store.starts(row.documents[number]), ascending=row.in_order)

    @property
    def n_bytes(self) -> int:
        return self._row.bytes_of(self._kept[: self._n])

    @property
    def ledger(self) -> SplitLedger:
        return self._row.ledger(
            specials=len(self._row.documents) * self._row.overhead,
            examples=len(self),
            placed=self.n_tokens,
            fill=fill(self.lengths, FILL_BATCH) if len(self) > 1 else None,
        )
