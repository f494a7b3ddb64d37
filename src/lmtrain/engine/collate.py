"""From a data set's items to the batch of a model: layouts, other people's data sets and collators."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DataCollatorForLanguageModeling

from lmtrain.core.types import Examples
from lmtrain.engine.packed import Packing, kept_apart, packed, restarted
from lmtrain.objectives import IGNORED, Objective
from lmtrain.objectives.base import model_inputs, real_positions

_log = logging.getLogger(__name__)


class Rows(NamedTuple):
    """Examples of a batch and, where the data set has its own, their labels (B, T)."""

    examples: Examples
    labels: np.ndarray | None = None


class EpochExamples:
    """A data set read by the counters of :class:`EpochOrder`, so that its examples know their epoch.

    ``dataset`` is a layout (``__getitems__`` gives :class:`Examples`) or any map-style data set of
    ``{"input_ids": …}``, with ``attention_mask``, ``labels`` and ``special_tokens_mask`` where it has them.
    With ``epoch`` given, as for evaluation, the counters are plain indices.

    A filler (a negative counter) becomes a row with one visible token and none to predict.
    """

    def __init__(self, dataset: Any, *, pad_id: int = 0, epoch: int | None = None) -> None:
        self.dataset = dataset
        self.pad_id = pad_id
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def lengths(self) -> np.ndarray | None:
        """(n,) tokens of each example, where the data set is a layout; None where it would have to be read for it."""
        lengths = getattr(self.dataset, "lengths", None)
        return lengths if isinstance(lengths, np.ndarray) and lengths.shape == (len(self),) else None

    def __getitem__(self, counter: int) -> Rows:
        return self.__getitems__([counter])

    def __getitems__(self, counters: Sequence[int]) -> Rows:
        signed = np.asarray(counters, dtype=np.int64)
        fillers = signed < 0
        counter = np.where(fillers, ~signed, signed)
        if self.epoch is None:
            epoch, index = int(counter[0]) // len(self), counter % len(self)
        else:
            epoch, index = self.epoch, counter
        rows = self._read(index.tolist(), epoch)
        return _without_targets(rows, fillers) if fillers.any() else rows

    def _read(self, index: list[int], epoch: int) -> Rows:
        read = getattr(self.dataset, "__getitems__", None)
        items = read(index) if read else [self.dataset[i] for i in index]
        if isinstance(items, Examples):
            return Rows(replace(items, epoch=epoch))
        return rows_of(items, np.asarray(index), epoch, self.pad_id)


def _without_targets(rows: Rows, fillers: np.ndarray) -> Rows:
    examples, labels = rows
    lengths = np.where(fillers, 1, examples.lengths)
    special = examples.special | fillers[:, None]
    if labels is not None:
        labels = np.where(fillers[:, None], IGNORED, labels)
    return Rows(replace(examples, lengths=lengths, special=special), labels)


def rows_of(items: Sequence[Any], index: np.ndarray, epoch: int, pad_id: int) -> Rows:
    """Pad items to the longest of them, on the right, with ``pad_id``; their lengths say what is real.

    An item is ids or a mapping with ``input_ids``. Padding that it brings along is known by its
    ``attention_mask`` and taken off first; without one every id is a token.
    """
    fields = [_fields(item) for item in items]
    length = max(len(f["input_ids"]) for f in fields)
    ids = np.full((len(items), length), pad_id, dtype=np.int64)
    special = np.ones((len(items), length), dtype=bool)
    labelled = all("labels" in f for f in fields)
    labels = np.full((len(items), length), IGNORED, dtype=np.int64) if labelled else None
    for row, f in enumerate(fields):
        end = len(f["input_ids"])
        ids[row, :end] = f["input_ids"]
        special[row, :end] = f.get("special_tokens_mask", np.zeros(end, dtype=bool))
        if labels is not None:
            labels[row, :end] = f["labels"]
    lengths = np.array([len(f["input_ids"]) for f in fields], dtype=np.int64)
    return Rows(Examples(ids, lengths, special, index, epoch), labels)


_FIELDS = ("input_ids", "attention_mask", "labels", "special_tokens_mask")


def _fields(item: Any) -> dict[str, np.ndarray]:
    """The fields of an item that we use, one-dimensional and without padding."""
    if not isinstance(item, Mapping):
        item = {"input_ids": item}
    if "input_ids" not in item:
        raise ValueError(f"an item of the data set has no input_ids, only {', '.join(map(str, item))}")
    fields = {name: _flat(item[name], name) for name in _FIELDS if item.get(name) is not None}
    mask = fields.pop("attention_mask", None)
    if mask is not None:
        fields = {name: value[mask.astype(bool)] for name, value in fields.items()}
    if not len(fields["input_ids"]):
        raise ValueError("an item of the data set has no tokens")
    return fields


def _flat(value: Any, name: str) -> np.ndarray:
    array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.ndim == 2 and array.shape[0] == 1:
        _say_squeezed(name)
        array = array[0]
    if array.ndim != 1:
        raise ValueError(f"{name} of an item has the shape {array.shape}; it must be one row of ids, shape (T,)")
    return array


@functools.cache
def _say_squeezed(name: str) -> None:
    _log.warning(
        "Items of the data set have %s of shape (1, T); taken as (T,). (A tokenizer called with "
        "return_tensors='pt' makes a batch of one.)",
        name,
    )


class Collate:
    """Our data collator: the objective decides, unless the data set brings labels of its own.

    With ``packing`` the examples of a batch are laid end to end instead of padded (:mod:`lmtrain.engine.packed`); which
    examples those are, and their masks, is the same either way. Examples that bring ``segments`` keep their rows.
    """

    def __init__(self, objective: Objective, pad_id: int = 0, packing: Packing | None = None) -> None:
        self.objective = objective
        self.pad_id = pad_id
        self.packing = packing

    def __call__(self, rows: Rows | Sequence[Any]) -> dict[str, Tensor]:
        if not isinstance(rows, Rows):  # from an iterable data set, whose items have no numbers
            rows = rows_of(rows, np.full(len(rows), -1), 0, self.pad_id)
        examples = rows.examples
        batch = self._labelled(rows)
        shifted = self.objective.shifted
        if examples.segments is not None:
            segments = np.where(real_positions(examples), examples.segments, 0)  # a filler is shorter than it was
            if segments.min(initial=1) == segments.max(initial=1):
                return batch  # no row has two documents
            return kept_apart(batch, torch.from_numpy(segments), torch.from_numpy(restarted(segments)), shifted=shifted)
        if self.packing is None or len(examples.lengths) < 2:
            return batch
        return packed(batch, examples.lengths, self.packing, shifted=shifted, pad_id=self.pad_id)

    def _labelled(self, rows: Rows) -> dict[str, Tensor]:
        if rows.labels is None:
            return self.objective.batch(rows.examples)
        labels = np.where(real_positions(rows.examples), rows.labels, IGNORED)
        return {**model_inputs(rows.examples), "labels": torch.from_numpy(labels)}


class Guarded:
    """Someone else's data collator, with what it gets wrong mended.

    Items of shape (1, T) are squeezed. The stock collator for causal models makes every label equal to the
    pad id -100, so that with pad = eos the real end-of-text tokens are never learned; they are put back
    where the attention mask says that a token is real.
    """

    def __init__(self, collator: Callable[[list[Any]], Any]) -> None:
        self.collator = collator
        self._restores = isinstance(collator, DataCollatorForLanguageModeling) and not collator.mlm

    def __call__(self, items: list[Any]) -> Any:
        batch = self.collator([_squeezed(item) for item in items])
        if self._restores and "attention_mask" in batch:
            erased = batch["attention_mask"].eq(1) & batch["labels"].eq(IGNORED)
            batch["labels"] = torch.where(erased, batch["input_ids"], batch["labels"])
        return batch


def _squeezed(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    return {name: _one_row(value, name) for name, value in item.items()}


def _one_row(value: Any, name: str) -> Any:
    shape = getattr(value, "shape", None)
    if shape is not None and len(shape) == 2 and shape[0] == 1:
        _say_squeezed(name)
        return value[0]
    return value
