"""Rows of token ids into padded batches whose results do not depend on how they were batched.

Shapes: ``B`` rows of a batch, ``T`` positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from lmtrain.core.errors import UserError

if TYPE_CHECKING:
    import torch

Row = TypeVar("Row")


def batches(
    rows: list[Row],
    size: int,
    length: Callable[[Row], int],
    together: Callable[[Row], Hashable] = lambda row: None,
) -> Iterator[list[Row]]:
    """Batches of at most ``size`` rows, longest first: little padding, and memory fails early or never.

    Only rows of which ``together`` says the same share a batch.
    """
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        groups[together(row)].append(row)
    for group in groups.values():
        ordered = sorted(group, key=length, reverse=True)
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size]


def pad(rows: list[list[int]], pad_id: int, device: Any, left: bool) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, both (B, T) int64; the mask is known by length, not by id."""
    import torch

    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.int64)
        mask[number, place] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def check_ids(rows: list[list[int]], model: Any) -> None:
    """Ids must have an embedding row; the library's own answer is an index error without names."""
    largest, known = (
        max((max(row) for row in rows if row), default=0),
        model.get_input_embeddings().weight.shape[0],
    )
    if largest >= known:
        raise UserError(
            f"the tokenizer gives the id {largest}, and the model has {known} embedding rows: they do not "
            "belong together",
            flag="--tokenizer_name",
        )


def shown(text: str, at_most: int = 60) -> str:
    """A prompt for an error message: quoted, one line, its beginning."""
    return repr(text if len(text) <= at_most else text[: at_most - 3] + "...")
