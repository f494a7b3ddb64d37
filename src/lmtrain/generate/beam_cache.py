"""Keys and values of the beams of a batch, moved as little as possible.

Shapes: ``B`` contexts of a batch, ``R`` rows (a row is a hypothesis that goes on), ``H`` heads, ``C`` positions of the
(padded) context, ``n`` positions so far, ``D`` width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lmtrain.generate.beam_rows import Move


class BeamCache(DynamicCache):
    """The cache of one batch: filled by the contexts (B rows), then :meth:`spread` to their beams.

    ``room`` is the number of positions that may follow the context. Layers that keep all keys and values are
    :class:`BeamLayer`; others (sliding windows, recurrent states) stay the library's and are reordered by it.
    """

    def __init__(self, config: Any, room: int) -> None:
        super().__init__(config=config)
        self.layers: list[Any] = [BeamLayer(room) if type(layer) is DynamicLayer else layer for layer in self.layers]

    @property
    def n_bytes(self) -> int:
        """What the keys and values take now."""
        tensors = [getattr(layer, name, None) for layer in self.layers for name in ("keys", "values")]
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)

    def spread(self, contexts: Tensor, most: int) -> None:
        """Row ``i`` becomes one of context ``contexts[i]`` (R,), which was run once; at ``most`` so many rows come."""
        for layer in self.layers:
            if isinstance(layer, BeamLayer):
                layer.spread(contexts, most)
            else:
                layer.reorder_cache(contexts)

    def follow(self, move: Move, device: torch.device) -> None:
        """Let each row go on from the past of another, as ``move`` says.

        A row that stays where it is costs nothing, one that goes on from another of its context costs a copy of the
        positions after the context, and only one that comes to another context's place is copied whole.
        """
        pairs = torch.tensor([move.sources, move.places], dtype=torch.int64).to(device)
        whole = torch.tensor(move.whole, dtype=torch.bool).to(device)
        rows = torch.arange(move.rows, device=device)
        rows[pairs[1]] = pairs[0]
        for layer in self.layers:
            if isinstance(layer, BeamLayer):
                layer.follow(pairs, pairs[:, whole], move.rows)
            else:
                layer.reorder_cache(rows)


class BeamLayer(DynamicLayer):
    """Keys and values of one layer in buffers that have room for the whole search from the start.

    The library's own layer joins old and new by making both anew at each step, and reorders all of it. Here a step
    writes one position, and what the beams of a context have in common, the context, stays where it is.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.context = 0  # C
        self._stores: list[Tensor] = []  # keys and values (R, H, C + room, D); none before the contexts are spread

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take in ``key_states`` and ``value_states`` (R, H, 1, D), or the contexts'; all of them come back."""
        if not self._stores:
            return super().update(key_states, value_states, *args, **kwargs)
        n, rows = self.get_seq_length(), len(key_states)
        after = n + key_states.shape[-2]
        for store, new in zip(self._stores, (key_states, value_states), strict=True):
            store[:rows, :, n:after] = new
        self.keys, self.values = (store[:rows, :, :after] for store in self._stores)
        return self.keys, self.values

    def spread(self, contexts: Tensor, most: int) -> None:
        """See :meth:`BeamCache.spread`."""
        if not self.is_initialized:  # a layer that uses another one's keys and values
            return
        assert self.keys is not None and self.values is not None
        self.context = self.get_seq_length()
        self._stores = [self._spread(past, contexts.to(past.device), most) for past in (self.keys, self.values)]
        self.keys, self.values = (store[: len(contexts), :, : self.context] for store in self._stores)

    def _spread(self, past: Tensor, contexts: Tensor, most: int) -> Tensor:
        _, heads, _, width = past.shape
        store = past.new_empty(most, heads, self.context + self.room, width)
        store[: len(contexts), :, : self.context] = past[contexts]
        return store

    def follow(self, moves: Tensor, whole: Tensor, rows: int) -> None:
        """What is behind the context in the rows ``moves[0]`` goes to the rows ``moves[1]``; all of it for ``whole``.

        See :meth:`BeamCache.follow`; ``rows`` are in use afterwards.
        """
        if not self._stores:
            return
        n = self.get_seq_length()
        for source, to, start, stop in (*moves, self.context, n), (*whole, 0, self.context):
            if len(to):
                for store in self._stores:
                    # all is gathered before anything is written: a row may be both left and entered
                    store[to.to(store.device), :, start:stop] = store[source.to(store.device), :, start:stop]
        self.keys, self.values = (store[:rows, :, :n] for store in self._stores)
