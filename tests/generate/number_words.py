"""A tokenizer whose words are the ids themselves, for the models of ``architectures.py``: "05 06 17" is [5, 6, 17]."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import architectures


def number_words(eos: int) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({words([i]): i for i in range(architectures.VOCABULARY)}, unk_token="04"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=words([eos]))


def words(ids: Iterable[int]) -> str:
    return " ".join(f"{i:02d}" for i in ids)
