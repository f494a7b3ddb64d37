"""How much of the validation text training sees too: whole documents, and stretches of tokens.

A score on text that the model was trained on says little. Repeated text is found in two ways: documents that are equal,
and stretches of ``WINDOW`` tokens of validation that occur anywhere in training. Fifty tokens is the length at which
Lee et al., *Deduplicating Training Data Makes Language Models Better* (2022), call a repetition no coincidence. The
windows are compared by a hash of 64 bits of their tokens: two that differ look alike once in 10**19 pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lmtrain.core.streams import mixed
from lmtrain.data.store import TokenStore

WINDOW = 50
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplying by it loses nothing: 2**64 divided by the golden ratio
_INVERSE = np.uint64(pow(int(_FACTOR), -1, 2**64))
_CHUNK = 1 << 18  # tokens hashed at once: 2 MB for each array in work
_DOCUMENTS = 1 << 18  # of training, compared at once
_MOST, _MOST_DOCUMENTS = 1 << 23, 1 << 19  # of validation, tokens and documents that are looked at: in 0.5 GB of memory


@dataclass(frozen=True)
class Overlap:
    """Counts of validation text: ``documents``, and ``shared_documents`` that are in training word for word;
    ``tokens``, and ``shared_tokens`` in stretches of ``window`` tokens that training has too. ``sampled``: of a part of
    validation, as all of it is too much."""

    documents: int
    shared_documents: int
    tokens: int
    shared_tokens: int
    window: int = WINDOW
    sampled: bool = False

    def __bool__(self) -> bool:
        return bool(self.shared_documents or self.shared_tokens)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        share = self.shared_tokens / max(1, self.tokens)
        return (
            f"{'in a sample, ' * self.sampled}{self.shared_documents:,} of {self.documents:,} validation documents are "
            f"in the training text word for word, and {share:.1%} of validation's tokens lie in stretches of "
            f"{self.window} tokens that training has too: scores will look better than they are"
        )


Documents = Sequence[tuple[TokenStore, np.ndarray]]  # of stores made with one tokenizer: which of their documents


def overlap(train: Documents, validation: Documents, window: int = WINDOW) -> Overlap:
    """Compare chosen documents (numbers, int64); both sides may be of one store.

    Takes one pass over the training tokens, some 0.1 µs a token, and memory of about 30 bytes a validation token and
    500 bytes a validation document; of training 8 bytes a document. Of more than ``_MOST`` validation tokens or
    ``_MOST_DOCUMENTS`` about so many are looked at, from all over them.
    """
    lengths = _lengths(validation)
    step = max(1, -(-int(lengths.sum()) // _MOST), -(-len(lengths) // _MOST_DOCUMENTS))
    validation = [(store, numbers[::step]) for store, numbers in validation]
    lengths = np.diff(np.minimum(np.cumsum(_lengths(validation)), _MOST), prepend=0)  # of few long ones the beginning
    shared = _equal_documents(train, validation)
    total = int(lengths.sum())
    starts = _repeated(train, validation, window, total)
    edges = np.zeros(total + 1, np.int8)
    edges[starts] += 1  # windows begin at places of their own, and end so
    edges[starts + window] -= 1
    covered = np.cumsum(edges[:-1], dtype=np.int32) > 0
    covered |= np.repeat(shared, lengths)  # equal documents may be shorter than a window
    return Overlap(len(lengths), int(shared.sum()), len(covered), int(covered.sum()), window, step > 1)


def _repeated(train: Documents, validation: Documents, window: int, most: int) -> np.ndarray:
    """Where those windows begin, of the first ``most`` tokens of validation in a row, that training has too: int32."""
    windows, places = _windows(validation, window, most)
    if not len(windows):
        return places
    order = np.argsort(windows)
    windows, places = windows[order], places[order]
    del order
    begins = np.append(True, windows[1:] != windows[:-1])
    table, kind = _Table(windows[begins]), np.cumsum(begins, dtype=np.int32) - 1
    del windows
    seen = np.zeros(int(kind[-1]) + 1, bool)
    for store, numbers in train:
        for tokens in _runs(store, np.sort(numbers)):
            for hashes in _hashes(tokens, window):
                seen[table.found(hashes)] = True
                store.release()
    return places[seen[kind]]


class _Table:
    """Different sorted hashes, found by their first bits: among millions a binary search waits for the memory twenty
    times.

    There are as many beginnings as hashes or more, and hashes are spread evenly, so those of one beginning are few.
    """

    def __init__(self, hashes: np.ndarray) -> None:
        """``hashes``: uint64 (W,), W > 0."""
        bits = max(1, int(len(hashes) - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._hashes = np.append(hashes, np.uint64(2**64 - 1))  # the last one ends every search
        self._first = np.empty(1 << bits, np.int32)
        for start in range(0, 1 << bits, _CHUNK):
            beginnings = np.arange(start, min(start + _CHUNK, 1 << bits), dtype=np.uint64) << self._shift
            self._first[start : start + _CHUNK] = np.searchsorted(hashes, beginnings)

    def found(self, wanted: np.ndarray) -> np.ndarray:
        """Where those of ``wanted`` stand that are there: int32, in any order."""
        at, places = self._first[wanted >> self._shift], []
        while len(wanted):
            here = self._hashes[at]
            places.append(at[here == wanted])
            left = here < wanted
            wanted, at = wanted[left], at[left] + 1
        both = np.concatenate([*places, np.empty(0, np.int32)])
        return both[both < len(self._hashes) - 1]


def _lengths(documents: Documents) -> np.ndarray:
    return np.concatenate([store.lengths[numbers].astype(np.int64) for store, numbers in documents])


def _equal_documents(train: Documents, validation: Documents) -> np.ndarray:
    """(D,) bool: which validation documents training has too. Empty ones are no repetition."""
    waiting: dict[int, list[tuple[int, np.ndarray]]] = {}  # by sign: validation documents not found so far
    count = 0
    for store, numbers in validation:
        for sign, number in zip(_signs(store, numbers).tolist(), numbers.tolist(), strict=True):
            if store.lengths[number]:
                waiting.setdefault(sign, []).append((count, store.document(number)))
            count += 1
    equal = np.zeros(count, bool)
    if not waiting:
        return equal
    wanted = np.sort(np.fromiter(waiting, np.uint64, len(waiting)))
    for store, numbers in train:
        for start in range(0, len(numbers), _DOCUMENTS):
            part = numbers[start : start + _DOCUMENTS]
            signs = _signs(store, part)
            alike = wanted[np.minimum(np.searchsorted(wanted, signs), len(wanted) - 1)] == signs
            for sign, number in zip(signs[alike].tolist(), part[alike].tolist(), strict=True):
                if not waiting[sign]:
                    continue
                document = store.document(number)
                same = [np.array_equal(tokens, document) for _, tokens in waiting[sign]]
                equal[[at for (at, _), found in zip(waiting[sign], same, strict=True) if found]] = True
                waiting[sign] = [one for one, found in zip(waiting[sign], same, strict=True) if not found]
    return equal


def _signs(store: TokenStore, numbers: np.ndarray) -> np.ndarray:
    """(D,) uint64: equal for documents of equal text."""
    checksum, size = store.crc32[numbers].astype(np.uint64), store.n_bytes[numbers].astype(np.uint64)
    with np.errstate(over="ignore"):
        return (checksum << np.uint64(32)) ^ (size * _FACTOR) ^ store.lengths[numbers].astype(np.uint64)


def _runs(store: TokenStore, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """The tokens of documents that lie side by side in a store, as one row each: windows go across their borders."""
    borders = np.flatnonzero(np.diff(numbers) != 1) + 1
    for first, last in pairwise([0, *borders.tolist(), len(numbers)] if len(numbers) else []):
        begin = int(store.starts(numbers[first : first + 1])[0])
        yield store.tokens[begin : begin + int(store.lengths[numbers[first:last]].sum(dtype=np.int64))]


def _windows(documents: Documents, window: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (W,) of the windows of the first ``most`` tokens of the documents, and where each begins when these stand
    in a row: int32 (W,)."""
    windows, places = np.empty(most, np.uint64), np.empty(most, np.int32)
    at = count = 0
    for store, numbers in documents:
        for tokens in _runs(store, numbers):
            tokens, before = tokens[: most - at], count
            for hashes in _hashes(tokens, window):
                windows[count : count + len(hashes)] = hashes
                count += len(hashes)
            places[before:count] = np.arange(at, at + count - before, dtype=np.int32)
            at += len(tokens)
    return windows[:count], places[:count]


def _hashes(tokens: np.ndarray, window: int) -> Iterator[np.ndarray]:
    """Hashes of every window of ``tokens`` (T,): uint64, together (T - window + 1,), in parts of ``_CHUNK``.

    A polynomial in ``_FACTOR`` over the window's tokens, modulo 2**64 (Karp and Rabin, 1987), from prefix sums: the sum
    to the window's end less that to its beginning, over the power that its beginning stands at. Ids are small and near
    each other, and a polynomial in them would be too, so their bits are mixed first.
    """
    for start in range(0, len(tokens) - window + 1, _CHUNK):
        part = tokens[start : start + _CHUNK + window - 1].astype(np.uint64) + np.uint64(1)
        powers = _powers(_FACTOR, len(part))
        sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed(part * _FACTOR) * powers, dtype=np.uint64)])
        yield (sums[window:] - sums[:-window]) * _powers(_INVERSE, len(sums) - window)


def _powers(factor: np.uint64, n: int) -> np.ndarray:
    """The first ``n``, from 1 on."""
    return np.concatenate([[np.uint64(1)], np.cumprod(np.full(n - 1, factor), dtype=np.uint64)])
