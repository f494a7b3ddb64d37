"""From a data set's items to the batch of a model: layouts, other people's data sets and collators."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DataCollatorForLanguageModeling

from lmtrain.core.errors import UserError
from lmtrain.core.types import Examples
from lmtrain.engine.batches.items import SQUEEZED, Limits, fields_of, look_at_labels, warn_once, without_ids
from lmtrain.engine.batches.packed import Packing, kept_apart, packed, restarted
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
    With ``epoch`` given, as for evaluation, it is that one whatever the counters say.

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
            epoch, index = self.epoch, counter % len(self)
        rows = self._read(index.tolist(), epoch)
        return _without_targets(rows, fillers) if fillers.any() else rows

    def _read(self, index: list[int], epoch: int) -> Rows:
        if in_epoch := getattr(self.dataset, "in_epoch", None):  # a mix: other examples in each epoch
            return Rows(replace(in_epoch(index, epoch), epoch=epoch))
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

    Items are as :func:`~lmtrain.engine.batches.items.fields_of` takes them; one without tokens becomes a row with one
    id and nothing to predict. Raises :class:`UserError` for items that cannot be used.
    """
    fields = [fields_of(item, int(number)) for item, number in zip(items, index, strict=True)]
    length = max(1, *(len(f["input_ids"]) for f in fields))
    ids = np.full((len(items), length), pad_id, dtype=np.int64)
    special = np.ones((len(items), length), dtype=bool)
    labelled = "labels" in fields[0]
    if any(("labels" in f) != labelled for f in fields):
        raise UserError("some items of the data set have labels and others have none; give them to all, or to none")
    labels = np.full((len(items), length), IGNORED, dtype=np.int64) if labelled else None
    for row, f in enumerate(fields):
        end = len(f["input_ids"])
        ids[row, :end] = f["input_ids"]
        special[row, :end] = f.get("special_tokens_mask", np.zeros(end, dtype=bool))
        if labels is not None:
            labels[row, :end] = f["labels"]
    lengths = np.array([max(1, len(f["input_ids"])) for f in fields], dtype=np.int64)
    return Rows(Examples(ids, lengths, special, index, epoch), labels)


class Collate:
    """Our data collator: the objective decides, unless the data set brings labels of its own.

    With ``packing`` the examples of a batch are laid end to end instead of padded
    (:mod:`lmtrain.engine.batches.packed`); which examples those are, and their masks, is the same either way.
    Examples that bring ``segments`` keep their rows.
    """

    def __init__(
        self, objective: Objective, pad_id: int = 0, packing: Packing | None = None, limits: Limits | None = None
    ) -> None:
        self.objective = objective
        self.pad_id = pad_id
        self.packing = packing
        self.limits = limits or Limits()

    def __call__(self, rows: Rows | Sequence[Any]) -> dict[str, Tensor]:
        if not isinstance(rows, Rows):  # from an iterable data set, whose items have no numbers
            rows = rows_of(rows, np.full(len(rows), -1), 0, self.pad_id)
        examples = rows.examples
        longest = int(examples.lengths.max())
        self.limits.check(examples.ids, longest, examples.index)  # before an objective hides what is wrong with them
        batch = self._labelled(rows)
        self.limits.check(batch["input_ids"].numpy(), longest, examples.index)
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
        look_at_labels(rows.examples.ids, labels, shifted=self.objective.shifted)
        facts = self.objective.facts(rows.examples)
        return {**model_inputs(rows.examples), "labels": torch.from_numpy(labels), **facts}


class Guarded:
    """Someone else's data collator, with what it gets wrong mended.

    Items of shape (1, T) are squeezed. A tokenizer without a pad token, as GPT-2's, fills rows with its end-of-text
    token. The stock collator for causal models makes every label equal to the pad id -100, so that with pad = eos the
    real end-of-text tokens are never learned; they are put back where the attention mask says that a token is real.
    What it cannot make a batch of is explained (:class:`UserError`).
    """

    def __init__(self, collator: Callable[[list[Any]], Any], limits: Limits | None = None) -> None:
        self.collator = collator
        self.limits = limits or Limits()
        # Not of kinds of it: those are made to mask more, such as what was asked.
        self._restores = type(collator) is DataCollatorForLanguageModeling and not collator.mlm
        _give_pad_token(getattr(collator, "tokenizer", None))

    def __call__(self, items: list[Any]) -> Any:
        items = [_squeezed(item) for item in items]
        try:
            batch = self.collator(items)
        except (ValueError, TypeError, RuntimeError) as error:
            problem = self._problem(items)
            if problem is None:
                raise
            raise problem from error
        if self._restores and "attention_mask" in batch:
            erased = batch["attention_mask"].eq(1) & batch["labels"].eq(IGNORED)
            batch["labels"] = torch.where(erased, batch["input_ids"], batch["labels"])
        ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
        if isinstance(ids, Tensor) and ids.ndim == 2 and ids.device.type == "cpu":
            positions = batch.get("position_ids")  # of rows that hold several examples: each begins at 0
            self.limits.check(ids.numpy(), ids.shape[1] if positions is None else int(positions.max()) + 1)
        return batch

    def _problem(self, items: list[Any]) -> UserError | None:
        """Why no batch could be made, in words for the data set's author; None where its items look all right."""
        first = items[0] if items else None
        if not isinstance(first, Mapping):
            return None
        if "input_ids" not in first:
            return without_ids(first)
        name = getattr(self.collator, "__name__", type(self.collator).__name__)
        for field in sorted(first, key=lambda field: field != "labels"):  # the one that most collators leave as it is
            values = [item[field] for item in items if field in item]
            if isinstance(values[0], str):
                return UserError(f"{name} makes tensors of all fields, and {field} is text; leave it out of the items")
            lengths = {len(value) for value in values if hasattr(value, "__len__")}
            if len(lengths) > 1:
                return UserError(
                    f"{name} cannot make a batch of items with {min(lengths)} to {max(lengths)} {field}; leave "
                    "data_collator out, and LMTrainer fills up all fields itself"
                )
        return None


def _give_pad_token(tokenizer: Any) -> None:
    """Where there is none, the end-of-text token: as padding it is told from a real one by the mask."""
    if getattr(tokenizer, "pad_token", "") is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
        _log.warning(
            "The tokenizer has no pad token: rows are filled with %s, which stays a label where it is real.",
            tokenizer.eos_token,
        )


def _squeezed(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    return {name: _one_row(value) for name, value in item.items()}


def _one_row(value: Any) -> Any:
    shape = getattr(value, "shape", None)
    tensor = shape is not None and len(shape) == 2 and shape[0] == 1
    nested = isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)
    if tensor or nested:
        warn_once(SQUEEZED)
        return value[0]
    return value


def filler(tokenizer: Any) -> int:
    """An id to fill rows with. Any does: labels end where a row ends, whatever follows."""
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(tokenizer, name, None)
        if isinstance(token, int):
            return token
    return 0
