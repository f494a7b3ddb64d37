"""GPT-2's way of cutting text into words, over arrays: what its trainer otherwise spends most of its time on.

Text is cut by ``'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`` (Radford et al. 2019,
the pattern of OpenAI's encoder.py), and each byte becomes a letter that can be seen. That is a matter of a few
comparisons of neighbouring letters: 30 MB/s on a core here, and 5 in ``tokenizers``, which looks for the pattern and
keeps account of where each byte came from. Learning needs none of that.
"""

from __future__ import annotations

import sys
import unicodedata
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from typing import Any

import numpy as np

BETWEEN = "\0"
"""Stands between two words."""

_OTHER, _LETTER, _DIGIT, _SPACE = range(4)
_APOSTROPHE, _BLANK = b"' "
_ENDINGS = [tuple(ending) for ending in (b"s", b"t", b"m", b"d", b"re", b"ve", b"ll")]
_AHEAD = 512  # chunks


def learn(backend: Any, trainer: Any, chunks: Iterable[str]) -> None:
    """``backend.train_from_iterator(chunks, trainer)`` for a tokenizer whose pre-tokenizer is ``ByteLevel`` without a
    prefix: the same vocabulary and merges, sooner. (Which letters there are is Python's word here.)"""
    from tokenizers.pre_tokenizers import CharDelimiterSplit

    splitting = backend.pre_tokenizer
    backend.pre_tokenizer = CharDelimiterSplit(BETWEEN)
    try:
        with closing(_ahead(map(in_words, chunks))) as words:
            backend.train_from_iterator(words, trainer)
    finally:
        backend.pre_tokenizer = splitting


def _ahead(items: Iterator[str]) -> Generator[str, None, None]:
    """``items``, made by a thread while the trainer, which takes hundreds at once, counts those before."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, items, None) for _ in range(_AHEAD))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(pool.submit(next, items, None))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)


def in_words(text: str) -> str:
    """``text`` as byte-level words, :data:`BETWEEN` between each two."""
    if not text:
        return ""
    data = np.frombuffer(text.encode("utf-8"), np.uint8)
    if text.isascii():
        begins = _begins(data)
    else:
        begins = np.zeros(len(data), bool)
        begins[(data & 0xC0) != 0x80] = _begins(np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4")))
    begins[0] = False  # nothing stands before the first
    out = np.zeros(len(data) + np.count_nonzero(begins), np.dtype("<u4"))
    out[np.arange(len(data)) + np.cumsum(begins)] = _seen()[data]
    return out.tobytes().decode("utf-32-le")


def _begins(letters: np.ndarray) -> np.ndarray:
    """Whether a word begins at each of the code points."""
    kinds = _kinds()[letters]
    begins = np.empty(len(letters), bool)
    begins[0] = True
    np.not_equal(kinds[1:], kinds[:-1], out=begins[1:])
    # Of spaces before a word the last is apart from the others, and if it is a blank it belongs to the word.
    after = np.flatnonzero((kinds[:-1] == _SPACE) & begins[1:]) + 1
    begins[after - 1] = True
    begins[after] = letters[after - 1] != _BLANK
    apostrophes = np.flatnonzero((letters == _APOSTROPHE) & begins)
    for ending in _ENDINGS:
        found = apostrophes[apostrophes < len(letters) - len(ending)]
        for at, letter in enumerate(ending, start=1):
            found = found[letters[found + at] == letter]
        begins[found + 1] = False
        rest = found + len(ending) + 1
        rest = rest[rest < len(letters)]
        begins[rest[kinds[rest] == _LETTER]] = True
    return begins


@cache
def _kinds() -> np.ndarray:
    """The kind of each code point: 0.3 s, once."""
    of = {"L": _LETTER, "N": _DIGIT}
    kinds = bytearray(of.get(unicodedata.category(letter)[0], _OTHER) for letter in map(chr, range(sys.maxunicode + 1)))
    for point in range(0x3001):  # the last space is U+3000
        if chr(point).isspace() and not 0x1C <= point <= 0x1F:  # which are none to Unicode
            kinds[point] = _SPACE
    return np.frombuffer(kinds, np.uint8)


@cache
def _seen() -> np.ndarray:
    """The letter that a byte-level vocabulary writes for each byte: itself, or the next one from U+0100 on."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return np.array([byte if byte in itself else next(others) for byte in range(256)], np.uint32)
