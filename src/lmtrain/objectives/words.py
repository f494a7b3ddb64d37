"""Which tokens begin a word, where a tokenizer tells words apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmtrain.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTINUES = "##"  # WordPiece marks what goes on with a word
_BEGINS = ("Ġ", "▁")  # byte-level BPE and SentencePiece mark what comes after a space
_LINE_BREAKS = ("Ċ", "č", "ĉ", "\n")  # newline, carriage return and tab in the byte-level alphabet


def word_starts(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """For each id up to the largest, whether its token begins a word: bool of that many.

    Works for vocabularies that say so: WordPiece (``##`` continues a word), byte-level BPE and SentencePiece
    (``Ġ`` or ``▁`` begin one). Raises :class:`UserError` for others, such as those of characters or bytes.
    """
    vocabulary, special = tokenizer.get_vocab(), set(tokenizer.all_special_ids)
    texts = sorted((i, token) for token, i in vocabulary.items() if i not in special)
    starts = np.ones(max(vocabulary.values()) + 1, dtype=bool)  # special tokens and holes stand by themselves
    continuing = [i for i, token in texts if token.startswith(_CONTINUES) and len(token) > len(_CONTINUES)]
    beginning = sum(token.startswith(_BEGINS) for _, token in texts)
    if continuing and not beginning:
        starts[continuing] = False
    elif beginning > 1:  # a bare ▁ alone is a space, not a convention
        for i, token in texts:
            starts[i] = token.startswith((*_BEGINS, *_LINE_BREAKS))
    else:
        raise UserError(
            "the tokenizer does not tell where words begin (no ##, Ġ or ▁ in its vocabulary); leave the "
            "option out, or choose a WordPiece, byte-level BPE or SentencePiece tokenizer",
            flag="--mask_whole_words",
        )
    return starts
