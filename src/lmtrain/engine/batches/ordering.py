"""In which order a run reads its examples: all shuffled with all, or within windows of a store that is large or far.

Chosen once, written into the run's decisions, and replayed: the order is part of what is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmtrain.config.options import DataOptions
from lmtrain.core.console import amount
from lmtrain.core.errors import UserError
from lmtrain.data.layouts.base import ByNumber, store_of
from lmtrain.data.store import CHUNK_BYTES
from lmtrain.engine.batches.windows import InWindows, ascends

_GB = 10**9
_OF_THE_CACHE = 4  # a window being read and the next one being fetched, each begun and ended inside chunks
_ALL = "all with all"


@dataclass(frozen=True)
class Ordering:
    """``windows``: None where all examples are shuffled with all. ``decision`` is for ``decisions.json``.

    ``remote``: the :class:`~lmtrain.data.remote.tokens.RemoteTokens` to read ahead in, where the store lies far away;
    ``first_tokens``, ``lengths``: where each example begins in it, and how many tokens it reads.
    """

    windows: InWindows | None = None
    decision: dict[str, Any] = field(default_factory=lambda: {"choice": _ALL})
    remote: Any = None
    first_tokens: np.ndarray | ByNumber | None = None
    lengths: np.ndarray | None = None


def choose_order(layout: Any, options: DataOptions, step_size: int, decided: Mapping[str, Any] | None) -> Ordering:
    """The order of a run's training examples, as ``decided`` before or as the options and the store have it.

    Raises :class:`UserError` where windows are asked for, or needed, and the examples lie all over the store.
    """
    store = store_of(layout)
    if store is None:
        _refuse_mixed(layout, options)
        return Ordering()
    remote = store.is_remote
    tokens = store.tokens if remote else None
    before = dict((decided or {}).get("order") or {})
    if not (before or remote or options.shuffle_window):
        return Ordering()
    first = layout.first_tokens
    if len(first) > 1 and not ascends(first):
        if not (remote or options.shuffle_window):
            return Ordering()
        raise UserError(
            "the examples of a window lie together in the store, and random documents joined do not; leave it out: "
            "examples are shuffled anyway",
            flag="--shuffle_documents",
        )
    where: dict[str, Any] = {"remote": tokens, "first_tokens": first, "lengths": layout.lengths} if remote else {}
    itemsize = store.tokens.dtype.itemsize
    chunk_tokens = int((store.manifest.get("chunks") or {}).get("bytes", CHUNK_BYTES)) // itemsize
    if before.get("choice") == _ALL:
        return Ordering(None, before, **where)
    size, reason = before.get("bytes"), before.get("reason", "")
    if size is None:
        size, reason = _size(options)
    windows = InWindows.of(first, chunk_tokens, max(1, size // itemsize), step_size)
    if windows is None:
        return Ordering(None, {"choice": _ALL, "reason": f"a window of {amount(size, 'B')} holds them all"}, **where)
    decision = {
        "choice": "in windows", "bytes": size, "examples": windows.window, "lanes": windows.lanes, "reason": reason
    }  # fmt: skip
    return Ordering(windows, decision, **where)


def _size(options: DataOptions) -> tuple[int, str]:
    if options.shuffle_window is not None:
        return int(options.shuffle_window * _GB), "--shuffle_window"
    return int(options.data_cache_gb * _GB / _OF_THE_CACHE), f"1/{_OF_THE_CACHE} of --data_cache_gb"


def _refuse_mixed(layout: Any, options: DataOptions) -> None:
    parts = [store_of(part) for part in getattr(layout, "layouts", {}).values()]
    if any(part is not None and part.is_remote for part in parts):
        raise UserError(
            "a mix reads each store here and there, which one on object storage is too slow for; copy the stores to "
            "this machine, or prepare one store of all texts",
            flag="--mix",
        )
    if parts and options.shuffle_window:
        raise UserError("a mix has its own order; leave one of them out", flag="--shuffle_window")


class Upcoming:
    """Has the chunks of examples fetched that will be asked for soon, by one of several processes.

    ``batch`` examples go to each process in turn; this one is number ``rank`` of ``world``.
    """

    def __init__(self, ordering: Ordering, *, batch: int, rank: int = 0, world: int = 1) -> None:
        assert ordering.first_tokens is not None and ordering.lengths is not None
        self._tokens = ordering.remote
        self._first, self._lengths = ordering.first_tokens, ordering.lengths
        self._batch, self._rank, self._world = batch, rank, world

    def expect(self, places: np.ndarray, examples: np.ndarray) -> None:
        """The ``examples`` (n,) at these ``places`` (n,) of the epoch's order come soon."""
        mine = examples[(places // self._batch) % self._world == self._rank]
        first = self._first[mine]
        ends = np.minimum(first + np.maximum(self._lengths[mine], 1), len(self._tokens)) - 1
        size = self._tokens.chunk_tokens
        chunks = np.concatenate([first, ends]) // size
        # In the order in which they are needed, each once.
        _, at = np.unique(chunks, return_index=True)
        self._tokens.expect(chunks[np.sort(at)].tolist())
