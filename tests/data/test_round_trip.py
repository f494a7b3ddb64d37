"""What a tokenizer loses is found: a byte without a token, a letter that changes, a space that goes."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from lmtrain.data.round_trip import tried


def byte_level(without: str = "") -> Tokenizer:
    letters = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(without))
    backend = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def test_a_whole_alphabet_loses_nothing() -> None:
    assert tried(byte_level(), ["some text", "\x00\U0010ffff"])[0] is None


@pytest.mark.parametrize("letter", ["a", "\u0120", "\u00ff"])
def test_a_byte_without_a_token(letter: str) -> None:
    """0x61, the space, and 0xFF, which no valid text holds."""
    assert tried(byte_level(without=letter), ["xyz"])[0] is not None


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", normalizers.Lowercase()),
        ("decoder", decoders.Strip(" ", 1, 0)),
        ("normalizer", normalizers.NFC()),
    ],
)
def test_what_changes_a_text(part: str, value: Any) -> None:
    backend = byte_level()
    if part == "normalizer":
        backend.normalizer = value
    else:
        backend.decoder = decoders.Sequence([decoders.ByteLevel(), value])
    found = tried(backend, [" Ab e\u0301"])[0]
    assert found is not None and "comes back as" in found
