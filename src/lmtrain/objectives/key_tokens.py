"""Predict every next token, and take the examples that hold certain tokens more seriously."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lmtrain.core.errors import UserError
from lmtrain.core.types import Examples
from lmtrain.objectives.base import KEYS, real_positions
from lmtrain.objectives.causal import Causal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FLAG = "--key_tokens"
_BEGINS = "\u2581"  # how SentencePiece writes the space in front of a word


class KeyTokens(Causal):
    """Causal, with the losses of example i multiplied by wᵢ = α·(1 + key tokens in example i).

    The weighted losses are divided by the number of predicted positions, not by the weights: examples of one length
    then have the loss of the Hugging Face course, chapter 7.6, mean over i of wᵢ·(mean loss of i), and α is a factor
    of loss and gradient. An example is a row as the layout makes it; all its tokens count, the first one too::

        ids      7 4 9 4     keys {4}, α 1:   w = 3
                 5 8 8 6                      w = 1

    Evaluation leaves the weights out.
    """

    def __init__(self, ids: Sequence[int], alpha: float = 1.0) -> None:
        if not ids:
            raise ValueError("no key tokens")
        self.ids = np.unique(np.asarray(ids, np.int64))
        self.alpha = alpha

    def batch(self, examples: Examples) -> dict[str, Tensor]:
        return {**super().batch(examples), **self.facts(examples)}

    def facts(self, examples: Examples) -> dict[str, Tensor]:
        # For every position, not every row: rows are laid end to end where they differ in length.
        found = (np.isin(examples.ids, self.ids) & real_positions(examples)).sum(1, keepdims=True)
        return {KEYS: torch.from_numpy(np.repeat(found, examples.ids.shape[1], axis=1))}

    def weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        if KEYS not in batch:
            raise ValueError(
                f"the batch has no {KEYS!r}: a data collator of one's own would have to put KeyTokens.facts(…) there"
            )
        return self.alpha * (1.0 + batch[KEYS].float())


@dataclass(frozen=True, slots=True)
class KeyIds:
    """The ids that stand for key words in a vocabulary: ``ids`` by word and, of words that are none, their pieces."""

    found: dict[str, dict[str, int]]
    left_out: dict[str, list[str]]

    @property
    def ids(self) -> list[int]:
        return sorted({number for forms in self.found.values() for number in forms.values()})

    def lines(self, *, weigh: bool = True) -> list[str]:
        """What the user is told: each word with its tokens, and the pieces of those left out; and what is done with
        the examples that hold some: they ``weigh`` more, in training, or are just told apart."""
        shown = (f"{word} ({', '.join(f'{t!r} {i}' for t, i in forms.items())})" for word, forms in self.found.items())
        treated = "weigh more" if weigh else "are also scored apart"
        lines = [f"examples with these {treated}: {', '.join(shown)}"]
        if self.left_out:
            pieces = (f"{word} is {' + '.join(map(repr, parts))}" for word, parts in self.left_out.items())
            lines.append(f"left out, since they are not one token: {', '.join(pieces)}")
        return lines


def find_key_ids(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> KeyIds:
    """Look up ``words`` as they are and with a space in front; only what is a single token counts.

    Raises :class:`UserError` when none of them is one.
    """
    vocabulary = tokenizer.get_vocab()
    found: dict[str, dict[str, int]] = {}
    left_out: dict[str, list[str]] = {}
    for word in dict.fromkeys(words):
        forms: dict[str, int] = {}
        for form in (word, f" {word}"):
            ids = tokenizer(form, add_special_tokens=False)["input_ids"]
            # SentencePiece's kin put a space in front of a text themselves, which hides the form without one.
            named = vocabulary.get(form.replace(" ", _BEGINS), -1)
            candidates = [*(ids if len(ids) == 1 else []), named]
            for number in candidates:
                if number >= 0 and number != tokenizer.unk_token_id and _text(tokenizer, number).strip() == word:
                    forms[_text(tokenizer, number)] = number
        if forms:
            found[word] = forms
        else:
            pieces = tokenizer(word, add_special_tokens=False)["input_ids"]
            left_out[word] = [_text(tokenizer, number) for number in pieces]
    if not found:
        pieces_of = "; ".join(f"{word} is {' + '.join(map(repr, pieces))}" for word, pieces in left_out.items())
        raise UserError(
            f"none of them is a single token of the tokenizer ({pieces_of}); choose words that it has, or train a "
            "tokenizer on text that is full of them: lmtrain tokenizer",
            flag=_FLAG,
        )
    return KeyIds(found, left_out)


def _text(tokenizer: PreTrainedTokenizerBase, number: int) -> str:
    """What a token stands for, the space in front of it kept."""
    piece = str(tokenizer.convert_ids_to_tokens(number))
    if piece.startswith(_BEGINS):
        return f" {piece.removeprefix(_BEGINS)}"
    return str(tokenizer.decode([number], clean_up_tokenization_spaces=False))
