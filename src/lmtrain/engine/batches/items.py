"""The items of one's own data set: which shapes are taken, and words for what cannot be trained on."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers.trainer_utils import has_length

from lmtrain.core.errors import UserError
from lmtrain.models import max_positions
from lmtrain.objectives import IGNORED

_log = logging.getLogger(__name__)

FIELDS = ("input_ids", "attention_mask", "labels", "special_tokens_mask")
"""What is taken of an item; everything else in it is left out."""

_TOKENIZE = (
    "tokenize it first: dataset.map(lambda rows: tokenizer(rows[{column!r}], truncation=True, max_length=…), "
    "batched=True), or return tokenizer(text, truncation=True, max_length=…) from __getitem__. For plain files "
    "lmtrain.prepare(tokenizer, train_file=…).splits['train'] makes such a data set"
)

SQUEEZED = (
    "Items of the data set have the shape (1, T) and are taken as (T,). A tokenizer called with return_tensors='pt' "
    "makes a batch of one; without it, no line like this."
)
NOTHING_PREDICTED = (
    "The first examples have no token to predict: all their labels are -100, or they are one token long. Nothing is "
    "learned from such examples, and a step of them has the loss 0."
)
_EMPTY = "Some items of the data set have no tokens (empty texts?); nothing is learned from them."
_SHOWN = (
    "The labels of the data set are its input_ids, so a masked model sees what it is to predict and learns nothing; "
    "leave labels out, and tokens are hidden from it."
)
_MOVED = (
    "The labels of the data set are its input_ids moved by one. They are moved in training too, so the model learns "
    "the token after the next; leave labels out, or give them as the input_ids are."
)


class Columns:
    """A mapping of columns, as ``tokenizer(texts)`` gives it, read as a data set of items."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = {name: columns[name] for name in FIELDS if name in columns}

    def __len__(self) -> int:
        return len(self.columns["input_ids"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: column[index] for name, column in self.columns.items()}


def as_dataset(data: Any, argument: str = "train_dataset") -> Any:
    """``data`` as something with items; for ``eval_dataset`` also a mapping of such by name.

    Raises :class:`UserError` for text, for what has no items or none at all, and for several data sets where there can
    be one.
    """
    if isinstance(data, str):
        raise UserError(f"{argument} is the text {_short(data)}; {_TOKENIZE.format(column='text')}")
    has_items = any(hasattr(data, name) for name in ("__getitem__", "__getitems__"))
    if not (data is None or has_items or isinstance(data, IterableDataset)):
        raise UserError(
            f"{argument} is a {type(data).__name__}, which has no items; give a list, a torch or datasets data set of "
            "{'input_ids': …} (batches are made here, and a collator is data_collator=…)"
        )
    if isinstance(data, Mapping) and "input_ids" in data:
        data = Columns(data)
    if not isinstance(data, Mapping):
        if has_length(data) and not len(data):
            raise UserError(
                f"{argument} is empty: it has no examples. Look at what filters or cuts them; a text that is shorter "
                "than a block may give none"
            )
        return data
    if argument != "eval_dataset":
        names = list(map(str, data))
        hint = f"choose one: {argument}=data[{names[0]!r}]" if names else "it is empty"
        raise UserError(f"{argument} holds several data sets or columns ({', '.join(names)}) and no input_ids; {hint}")
    named = {name: as_dataset(part, argument) for name, part in data.items()}
    return named if any(named[name] is not data[name] for name in named) else data


def fields_of(item: Any, number: int = -1) -> dict[str, np.ndarray]:
    """The :data:`FIELDS` of an item, one-dimensional and without padding: ids, or a mapping with ``input_ids``.

    Padding is known by the ``attention_mask``; without one every id is a token. ``number`` is the item's in its data
    set, negative where it has none. Raises :class:`UserError`.
    """
    if isinstance(item, str):
        raise UserError(f"{_named(number)} is the text {_short(item)}; {_TOKENIZE.format(column='text')}")
    if not isinstance(item, Mapping):
        if isinstance(item, list | tuple) and any(isinstance(part, Tensor | np.ndarray) and part.ndim for part in item):
            raise UserError(
                f"{_named(number)} is a {type(item).__name__} of {len(item)} tensors, and which of them are the tokens "
                "is not said; return {'input_ids': ids, 'attention_mask': mask} from __getitem__"
            )
        item = {"input_ids": item}
    if "input_ids" not in item:
        raise without_ids(item, number)
    fields = {name: _flat(item[name], name, number) for name in FIELDS if item.get(name) is not None}
    for name, value in fields.items():
        if len(value) != len(fields["input_ids"]):
            ignored = f" ({IGNORED} where nothing is predicted)" if name == "labels" else ""
            raise UserError(
                f"{_named(number)} has {len(fields['input_ids'])} input_ids and {len(value)} {name}; give one for each "
                f"token{ignored}"
            )
    mask = fields.pop("attention_mask", None)
    if mask is not None:
        fields = {name: value[mask.astype(bool)] for name, value in fields.items()}
    if not len(fields["input_ids"]):
        warn_once(_EMPTY)
    return fields


def without_ids(item: Mapping[str, Any], number: int = -1) -> UserError:
    """What to say of an item without ``input_ids``."""
    names = f", only {', '.join(map(str, item))}" if item else ""  # a Trainer leaves out what the model does not take
    texts = [name for name, value in item.items() if isinstance(value, str)] or ([] if item else ["text"])
    advice = _TOKENIZE.format(column=texts[0]) if texts else "return them from __getitem__, or name the column so"
    return UserError(f"{_named(number)} has no input_ids{names}; {advice}")


def without_labels(batch: Mapping[str, Any]) -> UserError:
    """What to say of a batch, of somebody else's collator, in which nothing is to be predicted."""
    return UserError(
        f"the data collator made no labels, only {', '.join(batch)}; have it make them, or leave data_collator out: "
        "then LMTrainer does"
    )


def _flat(value: Any, name: str, number: int) -> np.ndarray:
    array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.ndim == 2 and array.shape[0] == 1:
        warn_once(SQUEEZED)
        array = array[0]
    if array.ndim == 0 and name == "labels":
        raise UserError(
            f"{_named(number)} has {array!s} as its labels: that is a class, and a language model predicts tokens; "
            "leave the column out (dataset.remove_columns('labels')), or give a label for each token"
        )
    if array.ndim != 1:
        raise UserError(
            f"{_named(number)} has {name} of shape {tuple(array.shape)}; an item is one row of ids, shape (T,). A "
            "tokenizer called with a list of texts makes many rows: give each text an item of its own"
        )
    if array.size and array.dtype.kind not in "iub" and name != "attention_mask":
        raise UserError(f"{_named(number)} has {name} of type {array.dtype}; ids are whole numbers")
    return array


@dataclass(frozen=True)
class Limits:
    """What a model can take: ``rows`` of its embedding, ``positions`` of its table, None where there is none."""

    rows: int | None = None
    positions: int | None = None

    @classmethod
    def of(cls, model: Any) -> Limits:
        """Those of ``model``. A rotary model has no table that ends; what it was trained up to is the user's matter."""
        embedding = getattr(model, "get_input_embeddings", lambda: None)()
        tables = (
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Embedding) and module is not embedding
        )
        table = any("position" in name or name == "wpe" for name in tables)
        config = getattr(model, "config", None)
        bounded = table and hasattr(config, "get_text_config")  # else it is of someone's own making
        return cls(getattr(embedding, "num_embeddings", None), max_positions(config) if bounded else None)

    def check(self, ids: np.ndarray, length: int, index: Sequence[int] | np.ndarray | None = None) -> None:
        """Raise :class:`UserError` where ``ids`` (B, T), of which a row has up to ``length``, do not fit the model.

        On a GPU the model itself would fail without saying where. ``index`` (B,): the rows' numbers in their data set.
        """
        if self.positions is not None and length > self.positions:
            raise UserError(
                f"an example has {length:,} tokens and the model {self.positions:,} positions; cut it: "
                f"tokenizer(text, truncation=True, max_length={self.positions})"
            )
        if self.rows is None or not ids.size or (ids.max() < self.rows and ids.min() >= 0):
            return
        row, column = np.argwhere((ids >= self.rows) | (ids < 0))[0].tolist()
        raise UserError(
            f"{_named(-1 if index is None else int(index[row]))} holds the id {ids[row, column]} and the model knows "
            f"the ids from 0 to {self.rows - 1}; use the model's own tokenizer, or after adding tokens "
            "model.resize_token_embeddings(len(tokenizer))"
        )


def look_at_labels(ids: np.ndarray, labels: np.ndarray, *, shifted: bool) -> None:
    """Say so, once, where the labels (B, T) of a data set for ``ids`` (B, T) teach something else than was meant."""
    given = labels != IGNORED
    if given.sum() < 2:
        return
    if not shifted:
        if (labels[given] == ids[given]).all():
            warn_once(_SHOWN)
    elif ids.shape[1] > 2 and not (labels[given] == ids[given]).all():
        moved = given[:, :-1]
        if moved.any() and (labels[:, :-1][moved] == ids[:, 1:][moved]).all():
            warn_once(_MOVED)


@functools.cache
def warn_once(text: str) -> None:
    _log.warning(text)


def _named(number: int) -> str:
    return f"example {number}" if number >= 0 else "an example"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
