"""A batch laid out without padding: its examples end to end in as few rows as are cheap, kept apart by segments.

::

    ids        7 8 9 .          ids        7 8 9 5 4        labels of a decoder  - 8 9 - 4
               5 4 . .          segments   1 1 1 2 2
                                positions  0 1 2 0 1

What an example is, its masks and its labels are settled before; only the place of its tokens changes. Shapes: ``B``
examples of ``T`` positions, ``R`` rows of ``W``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmtrain.data.packing import BREAK_EVEN, Plan, plan
from lmtrain.objectives import IGNORED


@dataclass(frozen=True, slots=True)
class Packing:
    """How to pack: ``break_even`` and ``alignment`` as in :func:`lmtrain.data.packing.plan`; ``one_row``: always a
    single row, as variable-length kernels want it."""

    break_even: float = BREAK_EVEN
    alignment: int = 1
    one_row: bool = False

    def plan(self, lengths: np.ndarray) -> Plan:
        if self.one_row:
            return Plan([list(range(len(lengths)))], int(lengths.sum()))
        return plan(lengths, self.break_even, alignment=self.alignment)


def packed(
    batch: Mapping[str, Tensor], lengths: np.ndarray, packing: Packing, *, shifted: bool, pad_id: int = 0
) -> dict[str, Tensor]:
    """A padded batch of values (B, T) as rows (R, W), with ``segments`` and ``position_ids`` (R, W) int64.

    ``lengths`` (B,) are the examples' true lengths. Padding at the end of a row has segment 0, position 0 and no
    label. ``shifted``: a label is predicted from the token before it, so the first of an example gets none. A batch
    for which no row of several examples pays comes back as it is, without segments.
    """
    rows, width = packing.plan(lengths)
    if len(rows) == len(lengths):
        return dict(batch)
    places = _places(rows, lengths)
    shape = (len(rows), width)
    filling = {"input_ids": pad_id, "labels": IGNORED}
    moved = {
        name: places.move(value, shape, filling.get(name, 0))
        for name, value in batch.items()
        if name != "attention_mask"
    }
    segments, positions = torch.zeros(2, *shape, dtype=torch.int64)
    segments[places.row, places.column] = places.segment
    positions[places.row, places.column] = places.position
    return kept_apart(moved, segments, positions, shifted=shifted)


def kept_apart(batch: Mapping[str, Tensor], segments: Tensor, positions: Tensor, *, shifted: bool) -> dict[str, Tensor]:
    """A batch with its segments; where ``shifted``, no segment's first token is predicted from the one before it."""
    inputs = {name: value for name, value in batch.items() if name != "attention_mask"}
    if shifted:
        inputs["labels"] = inputs["labels"].masked_fill(positions.eq(0), IGNORED)
    return {**inputs, "segments": segments, "position_ids": positions}


def restarted(segments: np.ndarray) -> np.ndarray:
    """Positions (R, W) int64 that restart at 0 wherever ``segments`` (R, W) change; 0 in padding."""
    places = np.arange(segments.shape[1])
    begins = np.ones(segments.shape, bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    positions = places - np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    return np.where(segments > 0, positions, 0)


class _Places(NamedTuple):
    """Of every token, all (N,): its example and position there, and its row, column and segment in the packed batch."""

    example: Tensor
    position: Tensor
    row: Tensor
    column: Tensor
    segment: Tensor

    def move(self, values: Tensor, shape: tuple[int, int], filling: int) -> Tensor:
        moved = values.new_full(shape, filling)
        moved[self.row, self.column] = values[self.example, self.position]
        return moved


def _places(rows: list[list[int]], lengths: np.ndarray) -> _Places:
    order = np.concatenate([np.asarray(row, np.int64) for row in rows])
    sizes = lengths[order]
    row_sizes = [lengths[row] for row in rows]
    starts = np.concatenate([np.cumsum(size) - size for size in row_sizes])  # of each example in its row
    segments = np.concatenate([np.arange(1, len(row) + 1) for row in rows])
    row_numbers = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    position = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    column = position + np.repeat(starts, sizes)
    values = (np.repeat(order, sizes), position, np.repeat(row_numbers, sizes), column, np.repeat(segments, sizes))
    return _Places(*(torch.from_numpy(np.ascontiguousarray(value, np.int64)) for value in values))
