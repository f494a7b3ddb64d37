"""What either way of cutting documents into blocks costs, for the account.

====================  ================================================  ======================================
``blocks``            documents end to end, an end-of-text token after   drops less than a block; adds a token
                      each, cut anywhere                                 a document
``documents``         full windows of each document by itself            drops each document's last tokens, and
                                                                         all of one that fills no window
====================  ================================================  ======================================
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmtrain.data.ledger import ChunkCost, Chunking


def costs(
    lengths: Sequence[np.ndarray],
    block_size: int,
    joined: tuple[Sequence[int], Sequence[int]],
    alone: tuple[Sequence[int], Sequence[int]],
    *,
    taken: str,
    drop_remainder: bool = True,
) -> Chunking:
    """Both ways for documents of ``lengths`` (an array a store, content tokens). ``joined`` and ``alone``: the ids
    around each document in the one way, around each window in the other."""
    overhead = len(joined[0]) + len(joined[1])
    blocks = ChunkCost(0, 0, 0)
    for of_store in lengths:
        total = int(of_store.sum()) + len(of_store) * overhead
        whole, rest = divmod(total, block_size)
        keeps = rest and (not drop_remainder or not whole)
        blocks += ChunkCost(whole + bool(keeps), len(of_store) * overhead, 0 if keeps else rest)
    overhead = len(alone[0]) + len(alone[1])
    room = block_size - overhead
    windows = sum(int((of_store // room).sum()) for of_store in lengths) if room > 0 else 0
    tokens = sum(int(of_store.sum()) for of_store in lengths)
    return Chunking(taken, blocks, ChunkCost(windows, windows * overhead, tokens - windows * room))
