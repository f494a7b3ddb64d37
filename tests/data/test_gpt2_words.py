"""GPT-2's words over arrays are those of ``tokenizers``, and so is what is learned from them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from corpora import CODE
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lmtrain.data.gpt2_words import BETWEEN, in_words, learn

ASCII = ["'", *"stdmSlrx._", "re", "ve", "ll", "word", "1", "23", " ", "  ", "\n", "\r\n", *map(chr, range(32))]
OTHERS = [
    *"éßЖ日本ａ²½Ⅷ٣’“–€\u00a0\u2003\u2028\u3000\u0085\u200b\ufeff\u0301",
    "😀",
    "\U0001d4ce",
    "'s",
    " ",
    "\n",
    "a",
    "1",
]


def by_tokenizers(text: str) -> list[str]:
    splitting = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return [word for word, _ in splitting.pre_tokenize_str(text)]


@pytest.mark.parametrize("parts", [ASCII, OTHERS], ids=["ASCII", "others"])
def test_the_words_are_those_of_tokenizers(parts: list[str]) -> None:
    draw = random.Random(0)
    for text in ["a", " ", "'", *("".join(draw.choices(parts, k=draw.randint(1, 14))) for _ in range(5_000)), CODE]:
        assert in_words(text).split(BETWEEN) == by_tokenizers(text), repr(text)
    assert in_words("") == ""


@pytest.mark.parametrize(
    "chunks",
    [
        [CODE[at : at + 1000] for at in range(0, 40_000, 1000)],
        ["zwölf Boxkämpfer jagen’s\n" * 9, "a\0b \0\0 c", "日本"],
        [],
    ],
    ids=["ASCII", "others", "nothing"],
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


def test_what_is_wrong_with_the_text_is_heard() -> None:
    def chunks() -> Iterator[str]:
        yield CODE
        raise OSError("gone")

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = splitting = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(OSError, match="gone"):
        learn(backend, trainers.BpeTrainer(vocab_size=600, show_progress=False), chunks())
    assert type(backend.pre_tokenizer) is type(splitting)
