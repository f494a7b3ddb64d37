"""GPT-2's way of cutting text into words, over arrays: what its trainer otherwise spends most of its time on.

Text is cut by ``'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`` (Radford et al. 2019,
the pattern of OpenAI's encoder.py), and each byte becomes a letter that can be seen. In ASCII that is a matter of a few
comparisons of neighbouring bytes: 30 MB/s on a core here, and 5 in ``tokenizers``, which looks for the pattern and
keeps account of where each byte came from. Learning needs none of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, islice
from typing import Any

import numpy as np

BETWEEN = "\0"
"""Stands between two words."""

_OTHER, _LETTER, _DIGIT, _SPACE = range(4)
_APOSTROPHE, _BLANK = b"' "
_ENDINGS = [tuple(ending) for ending in (b"s", b"t", b"m", b"d", b"re", b"ve", b"ll")]
_LOOKED_AT = 64  # chunks that tell whether a text is mostly ASCII
_MOST_OTHERS = 1 / 4  # of these


def learn(backend: Any, trainer: Any, chunks: Iterable[str]) -> None:
    """``backend.train_from_iterator(chunks, trainer)`` for a tokenizer whose pre-tokenizer is ``ByteLevel`` without a
    prefix: the same vocabulary and merges, sooner where the text is mostly ASCII."""
    from tokenizers.pre_tokenizers import CharDelimiterSplit

    chunks = iter(chunks)
    first = list(islice(chunks, _LOOKED_AT))
    chunks = chain(first, chunks)
    if sum(not chunk.isascii() for chunk in first) > _MOST_OTHERS * len(first):
        backend.train_from_iterator(chunks, trainer)
        return
    splitting = backend.pre_tokenizer
    backend.pre_tokenizer = CharDelimiterSplit(BETWEEN)
    try:
        backend.train_from_iterator(_words(chunks, splitting), trainer)
    finally:
        backend.pre_tokenizer = splitting


def _words(chunks: Iterable[str], splitting: Any) -> Iterator[str]:
    for chunk in chunks:
        if chunk.isascii() and BETWEEN not in chunk:
            yield in_words(chunk)
        else:
            yield BETWEEN.join(word for word, _ in splitting.pre_tokenize_str(chunk))


def in_words(text: str) -> str:
    """ASCII ``text`` as byte-level words, :data:`BETWEEN` between each two."""
    if not text:
        return ""
    data = np.frombuffer(text.encode("ascii"), np.uint8)
    begins = _begins(data)
    begins[0] = False  # nothing stands before the first
    out = np.zeros(len(data) + np.count_nonzero(begins), np.uint32)
    out[np.arange(len(data)) + np.cumsum(begins)] = _tables()[1][data]
    return out.tobytes().decode("utf-32-le" if np.little_endian else "utf-32-be")


def _begins(data: np.ndarray) -> np.ndarray:
    """Whether a word begins at each byte."""
    kinds = _tables()[0][data]
    begins = np.empty(len(data), bool)
    begins[0] = True
    np.not_equal(kinds[1:], kinds[:-1], out=begins[1:])
    # Of spaces before a word the last is apart from the others, and if it is a blank it belongs to the word.
    after = np.flatnonzero((kinds[:-1] == _SPACE) & begins[1:]) + 1
    begins[after - 1] = True
    begins[after] = data[after - 1] != _BLANK
    apostrophes = np.flatnonzero((data == _APOSTROPHE) & begins)
    for ending in _ENDINGS:
        found = apostrophes[apostrophes < len(data) - len(ending)]
        for at, letter in enumerate(ending, start=1):
            found = found[data[found + at] == letter]
        begins[found + 1] = False
        rest = found + len(ending) + 1
        rest = rest[rest < len(data)]
        begins[rest[kinds[rest] == _LETTER]] = True
    return begins


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """The kind of each byte of ASCII, and the letter that a byte-level vocabulary writes for it."""
    kinds, letters, others = [], [], 0
    for byte in range(128):
        letter = chr(byte)
        kinds.append(_LETTER if letter.isalpha() else _DIGIT if letter.isdigit() else
                     _SPACE if letter in " \t\n\v\f\r" else _OTHER)  # fmt: skip
        seen = "!" <= letter <= "~"
        letters.append(byte if seen else 256 + others)
        others += not seen
    return np.array(kinds, np.uint8), np.array(letters, np.uint32)
