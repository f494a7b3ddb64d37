"""GPT-2's words over arrays are those of ``tokenizers``, and so is what is learned from them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from corpora import CODE
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lmtrain.data.ascii_words import BETWEEN, in_words, learn

PARTS = ["'", *"stdmSlrx._", "re", "ve", "ll", "word", "1", "23", " ", "  ", "\n", "\r\n", *map(chr, range(1, 32))]


def by_tokenizers(text: str) -> str:
    splitting = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return BETWEEN.join(word for word, _ in splitting.pre_tokenize_str(text))


def test_the_words_are_those_of_tokenizers() -> None:
    draw = random.Random(0)
    for text in ["", "a", " ", "'", *("".join(draw.choices(PARTS, k=draw.randint(1, 14))) for _ in range(5_000)), CODE]:
        assert in_words(text) == by_tokenizers(text), repr(text)


@pytest.mark.parametrize(
    "chunks",
    [
        [CODE[at : at + 1000] for at in range(0, 40_000, 1000)],
        [*(CODE[at : at + 1000] for at in range(0, 40_000, 1000)), "zwölf Boxkämpfer jagen’s " * 9, "a\0b \0\0 c" * 9],
        ["日本 " + CODE[:1000]] * 9,
        [],
    ],
    ids=["ASCII", "a little else", "mostly else", "nothing"],
)
def test_what_is_learned_is_the_same(chunks: list[str]) -> None:
    def learned(how: Any) -> str:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        how(backend, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
        return str(backend.to_str())

    stock = learned(lambda backend, trainer: backend.train_from_iterator(iter(chunks), trainer))
    assert learned(lambda backend, trainer: learn(backend, trainer, chunks)) == stock
