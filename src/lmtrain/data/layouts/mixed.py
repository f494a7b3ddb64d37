"""Several layouts as one: mixed in given shares, or one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

from lmtrain.core.errors import UserError
from lmtrain.core.streams import stream
from lmtrain.core.types import Examples
from lmtrain.data.layouts.base import Layout, Shortened
from lmtrain.data.ledger import SplitLedger
from lmtrain.data.packing import Fill

_PASSES = 2  # over each layout, whose order is kept: one ends in a batch and the next begins


class Joined(Shortened):
    """Layouts one after the other: every example of each, once."""

    note: str | None = None

    def __init__(self, layouts: Mapping[str, Layout]) -> None:
        self.layouts = dict(layouts)
        self._ends = np.cumsum([len(layout) for layout in layouts.values()])
        self._n = int(self._ends[-1])
        self._made_of, self._settings = (self.layouts,), {}

    def _places(self, index: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Which layout each example of an epoch comes from, and its number there: int64, both of ``index``'s shape."""
        which = np.searchsorted(self._ends, index, "right")
        return which, index - np.concatenate([[0], self._ends])[which]

    def in_epoch(self, indices: Sequence[int], epoch: int) -> Examples:
        """The examples with these numbers as pass ``epoch`` over the data sees them."""
        index = np.asarray(indices, np.int64)
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(self)):
            raise IndexError(f"example {indices} of {len(self)}")
        which, at = self._places(index, epoch)
        parts = []
        for number, layout in enumerate(self.layouts.values()):
            if (rows := np.flatnonzero(which == number)).size:
                parts.append((rows, layout.__getitems__(at[rows].tolist())))
        return _together(parts, index, getattr(next(iter(self.layouts.values())), "pad_id", 0))

    def __getitems__(self, indices: Sequence[int]) -> Examples:
        return self.in_epoch(indices, 0)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        which, at = self._places(np.array([index]), 0)
        return list(self.layouts.values())[int(which[0])][int(at[0])]

    @cached_property
    def counts(self) -> np.ndarray:
        """(S,) examples of an epoch from each layout."""
        which, _ = self._places(np.arange(len(self)), 0)
        return np.bincount(which, minlength=len(self.layouts))

    @property
    def lengths(self) -> np.ndarray:
        which, at = self._places(np.arange(len(self)), 0)
        lengths = np.empty(len(self), np.int64)
        for number, layout in enumerate(self.layouts.values()):
            mine = which == number
            lengths[mine] = layout.lengths[at[mine]]
        return lengths

    def _in_proportion(self, totals: list[int]) -> int:
        """A total over an epoch, from those of the layouts, each counted as often as it is read."""
        sizes = [max(1, len(layout)) for layout in self.layouts.values()]
        return round(sum(t * c / n for t, c, n in zip(totals, self.counts.tolist(), sizes, strict=True)))

    @property
    def n_tokens(self) -> int:
        return self._in_proportion([layout.n_tokens for layout in self.layouts.values()])

    @property
    def n_bytes(self) -> int:
        return self._in_proportion([layout.n_bytes for layout in self.layouts.values()])

    @property
    def ledger(self) -> SplitLedger:
        """The account of all layouts together, with the examples of one epoch."""
        parts = [layout.ledger for layout in self.layouts.values()]
        names = ("documents", "bytes", "tokens", "specials", "placed", "dropped")
        sums: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in names}
        fills = [part.fill for part in parts if part.fill]
        weights = [part.examples for part in parts if part.fill]
        fill = Fill(*np.average(np.array(fills), axis=0, weights=weights).tolist()) if fills else None
        return SplitLedger(**sums, examples=len(self), fill=fill)


class Mixed(Joined):
    """Examples of several layouts in the given shares, for training.

    An epoch is as long as all layouts together. A layout that its share asks more of than it has is begun again, in
    another order; one that is asked less of goes on in the next epoch where it stopped. So every example of a layout is
    read equally often, give or take one, and which comes when is a function of (seed, epoch, number).
    The layouts alternate in an epoch as evenly as the shares allow, so its first part is mixed like the whole.
    """

    def __init__(self, layouts: Mapping[str, Layout], shares: Mapping[str, float], seed: int) -> None:
        super().__init__(layouts)
        self.shares = {name: shares[name] / sum(shares.values()) for name in layouts}
        self.seed = seed
        for name, layout in layouts.items():
            if not len(layout):
                raise UserError(f"{name} gives no example to mix in; leave it out, or name more text", flag="--mix")
        counts = _apportioned(list(self.shares.values()), self._n)
        which = np.repeat(np.arange(len(counts)), counts)
        ranks = np.concatenate([np.arange(count) for count in counts])
        # the k-th of n examples belongs k + 1/2 n-ths of the way through the epoch
        order = np.argsort((ranks + 0.5) / counts[which], kind="stable")
        self._which, self._ranks = which[order].astype(np.int16), ranks[order]
        self._n = len(order)
        self._orders = [
            lru_cache(_PASSES)(partial(_permutation, seed, number, len(layout)))
            for number, layout in enumerate(layouts.values())
        ]
        self._made_of = (self.layouts, self.shares, seed)

    @cached_property
    def counts(self) -> np.ndarray:
        return np.bincount(self._which[: self._n], minlength=len(self.layouts))

    @property
    def note(self) -> str:  # type: ignore[override]
        """What the shares come to."""
        return ", ".join(
            f"{count / self._n:.1%} {name} ({count:,} of an epoch's examples: {count / len(layout):.3g} times its "
            f"{len(layout):,})"
            for (name, layout), count in zip(self.layouts.items(), self.counts.tolist(), strict=True)
        )

    def _places(self, index: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        which = self._which[index].astype(np.int64)
        sizes = np.array([len(layout) for layout in self.layouts.values()])
        turn, place = np.divmod(self._ranks[index] + epoch * self.counts[which], sizes[which])
        at = np.empty(len(index), np.int64)
        for number, passed in {*zip(which.tolist(), turn.tolist(), strict=True)}:
            rows = (which == number) & (turn == passed)
            at[rows] = self._orders[number](passed)[place[rows]]
        return which, at


def _permutation(seed: int, source: int, size: int, turn: int) -> np.ndarray:
    return stream(seed, "mixed", source, turn).permutation(size)


def _apportioned(shares: Sequence[float], total: int) -> np.ndarray:
    """``total`` divided in these shares, which sum to 1, into whole numbers by largest remainder; none gets nothing."""
    exact = np.array(shares) * total
    counts = np.floor(exact).astype(np.int64)
    for place in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]:
        counts[place] += 1
    return np.maximum(counts, 1)


def _together(parts: list[tuple[np.ndarray, Examples]], index: np.ndarray, pad_id: int) -> Examples:
    """One batch of the rows of several, each part with the places its rows take."""
    width = max((part.ids.shape[1] for _, part in parts), default=0)

    def gathered(name: str, padding: int, dtype: type) -> np.ndarray | None:
        columns = [(rows, getattr(part, name)) for rows, part in parts]
        if any(values is None for _, values in columns):
            return None
        whole = np.full((len(index), width), padding, dtype)
        for rows, values in columns:
            whole[rows, : values.shape[1]] = values
        return whole

    lengths = np.zeros(len(index), np.int64)
    for rows, part in parts:
        lengths[rows] = part.lengths
    ids, special = gathered("ids", pad_id, np.int64), gathered("special", 1, bool)
    assert ids is not None and special is not None
    return Examples(
        ids, lengths, special, index, segments=gathered("segments", 0, np.int64), answer=gathered("answer", 0, bool)
    )
