"""Documents in memory, in the shape of a token store: for pairs that are handed over as lists of ids."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


class MemoryStore:
    """What a layout reads of :class:`~lmtrain.data.store.TokenStore`, without a folder.

    ``tokens`` (N,) int32; ``lengths`` (D,) int32; ``n_bytes`` (D,) int64, 0 as the text is not known; ``crc32`` (D,)
    uint32, of the ids.
    """

    def __init__(self, documents: Iterable[Sequence[int]]) -> None:
        rows = [np.asarray(ids, np.int32) for ids in documents]
        self.tokens = np.concatenate(rows) if rows else np.empty(0, np.int32)
        self.lengths = np.array([len(row) for row in rows], np.int32)
        self.n_bytes = np.zeros(len(rows), np.int64)
        self.crc32 = np.array([zlib.crc32(row.tobytes()) for row in rows], np.uint32)
        self.manifest: dict[str, Any] = {"sources": [], "cut": None}
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths, dtype=np.int64)])

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.lengths)

    def starts(self, documents: np.ndarray | slice) -> np.ndarray:
        """Where the documents' tokens begin in ``tokens``: int64."""
        return np.asarray(self._starts[:-1][documents])

    def document(self, number: int) -> np.ndarray:
        """Ids of one document: a view of shape (length,)."""
        return self.tokens[int(self._starts[number]) : int(self._starts[number + 1])]
