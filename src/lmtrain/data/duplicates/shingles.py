"""Runs of five words as numbers of 64 bits: what two texts are compared by.

Lee et al., *Deduplicating Training Data Makes Language Models Better* (2022), compare sets of 5-grams at a Jaccard
similarity of 0.8. A word is a run of letters, digits and ``_``, small and capital letters alike; a character that
UTF-8 writes with three bytes or more, such as those of Chinese and Thai, is a word by itself, because such text has no
spaces to tell words by. Everything else only separates words. A text of fewer than five words is one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from lmtrain.core.streams import stream

WORDS = 5
_TOGETHER = 1 << 17  # bytes hashed at once: arrays of a megabyte, which stay in the caches of a core

_WORD = np.zeros(256, dtype=bool)
_WORD[np.frombuffer(b"abcdefghijklmnopqrstuvwxyz0123456789_", dtype=np.uint8)] = True
_WORD[128:] = True


@cache
def _factors() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Odd random numbers, always the same: for each letter (0 for what is in no word), place in a word, and order."""
    draw = stream(0, "shingles")
    letters, places, order = (draw.integers(1, 1 << 63, n, dtype=np.uint64) | np.uint64(1) for n in (256, 256, WORDS))
    letters[~_WORD] = 0
    return letters, places, order


def shingles(texts: Sequence[bytes]) -> Iterator[np.ndarray]:
    """The shingles of each text in UTF-8: uint64, sorted, each once; none for a text without words."""
    group: list[bytes] = []
    size = 0
    for text in texts:
        if size + len(text) > _TOGETHER:
            yield from _of_group(group)
            group, size = [], 0
        if len(text) > _TOGETHER:
            yield _sorted(_runs(np.concatenate([_words(block) for block in _blocks(text)])))
        else:
            group.append(text)
            size += len(text) + 1
    yield from _of_group(group)


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """The shared elements of two sorted sets by all their elements; 0 when both are empty."""
    small, large = (one, other) if len(one) < len(other) else (other, one)
    if not len(small):
        return 0.0
    places = np.minimum(np.searchsorted(large, small), len(large) - 1)
    shared = int(np.count_nonzero(large[places] == small))
    return shared / (len(one) + len(other) - shared)


def _blocks(text: bytes) -> Iterator[bytes]:
    """A long text in parts that do not cut words, but for words of 128 kB."""
    start = 0
    while start < len(text):
        stop = min(start + _TOGETHER, len(text))
        if stop < len(text):
            stop = max(text.rfind(b"\n", start, stop), text.rfind(b" ", start, stop)) + 1 or stop
        yield text[start:stop]
        start = stop


def _of_group(texts: Sequence[bytes]) -> Iterator[np.ndarray]:
    if not texts:
        return
    data = b"\n".join([*texts, b""])
    ends = np.cumsum([len(text) + 1 for text in texts])
    places: list[np.ndarray] = []
    words = _words(data, places)
    until = np.searchsorted(places[0], ends)
    first = 0
    for last in until.tolist():
        yield _sorted(_runs(words[first:last]))
        first = last


def _words(text: bytes, places: list[np.ndarray] | None = None) -> np.ndarray:
    """The words of a text as numbers; ``places`` receives the bytes that they begin at."""
    data = np.frombuffer(text.lower(), dtype=np.uint8)
    in_word = _WORD.take(data)
    begins = in_word.copy()
    begins[1:] &= ~in_word[:-1]
    if (wide := data >= 0xE0).any():
        begins |= wide
        behind = np.zeros_like(begins)  # the character before this byte has three bytes, or four
        behind[3:] = wide[:-3] & (data[:-3] < 0xF0)
        behind[4:] |= data[:-4] >= 0xF0
        begins |= behind & in_word
    starts = np.flatnonzero(begins)
    if places is not None:
        places.append(starts)
    if not len(starts):
        return np.zeros(0, dtype=np.uint64)
    lengths = np.diff(np.append(starts, len(data)))
    within = np.arange(starts[0], len(data)) - np.repeat(starts, lengths)
    by_letter, by_place, _ = _factors()
    letters = by_letter.take(data[starts[0] :])
    letters *= by_place.take(within & 255)
    return _mixed(np.add.reduceat(letters, starts - starts[0]))


def _runs(words: np.ndarray) -> np.ndarray:
    count, order = len(words), _factors()[2]
    if count < WORDS:
        return _mixed((words * order[:count]).sum(keepdims=True)) if count else words
    total = words[: count - WORDS + 1] * order[0]
    for place in range(1, WORDS):
        total = total + words[place : count - WORDS + 1 + place] * order[place]
    return _mixed(total)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of the value (the finish of MurmurHash3, 64 bits)."""
    values = values ^ (values >> np.uint64(33))
    values = values * np.uint64(0xFF51AFD7ED558CCD)
    values = values ^ (values >> np.uint64(33))
    values = values * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def _sorted(values: np.ndarray) -> np.ndarray:
    values = np.sort(values)  # a tenth of the time of np.unique
    return values[np.append(values[1:] != values[:-1], True)] if len(values) else values
