"""Hide some tokens and predict them.

Which tokens are hidden is a function of (seed, epoch, example, position) and of nothing else: not of the
batch the example is in, nor of the worker or process that makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from lmtrain.core.errors import UserError
from lmtrain.core.streams import derive, mixed
from lmtrain.core.types import Examples
from lmtrain.objectives.base import IGNORED, Objective, model_inputs, real_positions
from lmtrain.objectives.words import word_starts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EVALUATION_EPOCH: Final = -1
"""The epoch for which evaluation draws its masks: always the same, so two evaluations agree."""

_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)


class Masked(Objective):
    """Hide about ``probability`` of the ordinary tokens of every example, as BERT does (Devlin et al., 2019).

    Of the hidden tokens 80 % become the mask token, 10 % a random id of the whole vocabulary and 10 % stay.
    Each token is drawn on its own; where a draw would hide none in an example, the token nearest to being
    drawn is hidden, so every example with an ordinary token has a label. With ``starts_word`` (bool by id, see
    :func:`word_starts`) words are drawn instead of tokens, and all tokens of a drawn word are hidden.

    ``special_ids`` are never hidden, wherever they stand, in addition to what the examples mark as special.
    ``vocabulary``: the ids that there are, sorted, where they are not those below ``vocab_size``. Ids that nobody
    named are ordinary ones here: whether the model has a row for them is asked when the batch is made.
    """

    shifted = False

    def __init__(
        self,
        mask_id: int,
        vocab_size: int,
        *,
        seed: int = 42,
        probability: float = 0.15,
        special_ids: tuple[int, ...] = (),
        starts_word: np.ndarray | None = None,
        vocabulary: np.ndarray | None = None,
    ) -> None:
        if not 0 < probability <= 1:
            raise UserError(f"{probability} is not a share of tokens; give a number above 0, up to 1",
                            flag="--mlm_probability")  # fmt: skip
        self.mask_id = mask_id
        self.vocab_size = vocab_size
        self.seed = seed
        self.probability = probability
        self.starts_word = starts_word
        self._vocabulary = vocabulary
        self._is_special = np.zeros(max(vocab_size, *(i + 1 for i in special_ids), mask_id + 1), dtype=bool)
        self._is_special[list(special_ids)] = True

    @classmethod
    def for_tokenizer(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int = 42,
        probability: float = 0.15,
        whole_words: bool = False,
    ) -> Masked:
        """With a tokenizer's mask token, vocabulary, special tokens and, if asked for, its words."""
        if tokenizer.mask_token_id is None:
            raise UserError(
                "the tokenizer has no mask token, which masked training needs; choose a masked model's "
                "tokenizer, or train a causal model with lmtrain clm",
                flag="--tokenizer_name",
            )
        ids = sorted(set(tokenizer.get_vocab().values()))
        return cls(
            tokenizer.mask_token_id,
            len(ids),
            seed=seed,
            probability=probability,
            special_ids=tuple(tokenizer.all_special_ids),
            starts_word=word_starts(tokenizer) if whole_words else None,
            vocabulary=np.array(ids) if ids[-1] >= len(ids) else None,  # gaps between the ids
        )

    def batch(self, examples: Examples) -> dict[str, Tensor]:
        inputs = model_inputs(examples)
        eligible = real_positions(examples) & ~examples.special & ~_looked_up(self._is_special, examples.ids, False)
        words = _stream_words(self.seed, examples.epoch, examples.index, examples.ids.shape[1])
        draws = _unit(words)
        if self.starts_word is not None:
            draws = self._first_of_word(draws, examples.ids, eligible)
        hidden = _choose(draws, eligible, self.probability)

        rows, columns = np.nonzero(hidden)
        ids = inputs["input_ids"].numpy().copy()
        labels = np.full_like(ids, IGNORED)
        labels[rows, columns] = ids[rows, columns]
        # A second word for the hidden positions alone: what to put there, and which random id.
        second = mixed(words[rows, columns] ^ _GAMMA)
        action = _unit(second)
        random_ids = (((second & np.uint64(0xFFFFFFFF)) * np.uint64(self.vocab_size)) >> np.uint64(32)).astype(np.int64)
        if self._vocabulary is not None:
            random_ids = self._vocabulary[random_ids]
        ids[rows, columns] = np.where(
            action < 0.8,
            self.mask_id,
            np.where(action < 0.9, random_ids, ids[rows, columns]),
        )
        return {**inputs, "input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}

    def _first_of_word(self, draws: np.ndarray, ids: np.ndarray, eligible: np.ndarray) -> np.ndarray:
        """Give every token the draw of its word's first token: (B, T).

        A word begins where the tokenizer says so, and after anything that cannot be hidden; a row that
        begins in the middle of a word begins with a word of its own.
        """
        assert self.starts_word is not None
        begins = _looked_up(self.starts_word, ids, True) | ~eligible
        begins[:, 1:] |= ~eligible[:, :-1]
        begins[:, 0] = True
        first = np.maximum.accumulate(np.where(begins, np.arange(ids.shape[1]), 0), axis=1)
        return np.take_along_axis(draws, first, axis=1)


def _looked_up(table: np.ndarray, ids: np.ndarray, other: bool) -> np.ndarray:
    """``table[ids]``, ``other`` for ids that are not in it."""
    if ids.max(initial=0) < len(table) and ids.min(initial=0) >= 0:
        return np.asarray(table[ids])
    return np.where((ids >= 0) & (ids < len(table)), table[np.clip(ids, 0, len(table) - 1)], other)


def _choose(draws: np.ndarray, eligible: np.ndarray, probability: float) -> np.ndarray:
    """Eligible positions whose draw is below ``probability``; the lowest draw of a row where none is."""
    draws = np.where(eligible, draws, 2.0)  # above every draw
    hidden = draws < probability
    none = ~hidden.any(axis=1) & eligible.any(axis=1)
    if none.any():
        hidden[none] = draws[none] == draws[none].min(axis=1, keepdims=True)
    return hidden


def _stream_words(seed: int, epoch: int, index: np.ndarray, length: int) -> np.ndarray:
    """64 random bits for every position of every example: uint64 of shape (B, length).

    Each row is a SplitMix64 sequence whose start is a hash of (seed, epoch, index): a generator for each
    example without a loop over the examples.
    """
    start = np.uint64(derive(seed, "mask", epoch) & (2**64 - 1))
    row = mixed(mixed(index.astype(np.int64).view(np.uint64) * _GAMMA + start))
    return mixed(row[:, None] + np.arange(1, length + 1, dtype=np.uint64) * _GAMMA)


def _unit(words: np.ndarray) -> np.ndarray:
    """The upper 53 bits as a float64 in [0, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
