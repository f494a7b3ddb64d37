"""How much of the validation text training sees too: whole documents, and stretches of tokens.

A score on text that the model was trained on says little. Repeated text is found in two ways: documents that are equal,
and stretches of ``WINDOW`` tokens of validation that occur anywhere in training. Fifty tokens is the length at which
Lee et al., *Deduplicating Training Data Makes Language Models Better* (2022), call a repetition no coincidence. The
windows are compared by a hash of 64 bits of their tokens: two that differ look alike once in 10**19 pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np

from lmtrain.core.children import cores
from lmtrain.core.streams import mixed
from lmtrain.data.store import TokenStore

WINDOW = 50
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplying by it loses nothing: 2**64 divided by the golden ratio
_INVERSE = np.uint64(pow(int(_FACTOR), -1, 2**64))
_CHUNK = 1 << 18  # tokens hashed at once: 2 MB for each array in work
_THREADS = 8  # at most, each with some 15 MB of such arrays
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

    Takes one pass over the training tokens, some 0.1 µs of a core for each, and memory of about 30 bytes a validation
    token and 50 bytes a validation document; of training a byte or two a document. Of more than ``_MOST`` validation
    tokens or ``_MOST_DOCUMENTS`` about so many are looked at, from all over them.
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

    def look(store: TokenStore, parts: list[np.ndarray]) -> None:
        for part in parts:
            seen[table.found(_hashes(part, window))] = True
        store.release()

    with ThreadPoolExecutor(min(cores(), _THREADS)) as threads:  # NumPy's passes over parts run beside each other
        for store, numbers in train:
            in_order = numbers if (numbers[1:] > numbers[:-1]).all() else np.sort(numbers)
            list(threads.map(partial(look, store), _shares(_runs(store, in_order), window)))
    return places[seen[kind]]


def _shares(runs: Iterable[np.ndarray], window: int) -> Iterator[list[np.ndarray]]:
    """The parts of ``runs``, so many together that they are worth a thread's while."""
    share, size = list[np.ndarray](), 0
    for part in (part for tokens in runs for part in _parts(tokens, window)):
        share.append(part)
        size += len(part)
        if size >= _CHUNK:
            yield share
            share, size = [], 0
    yield share


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
    lengths = _lengths(validation)
    equal = np.zeros(len(lengths), bool)
    signs = np.concatenate([_signs(store, numbers) for store, numbers in validation])
    order = np.flatnonzero(lengths)
    order = order[np.argsort(signs[order], kind="stable")]
    wanted, begins = np.unique(signs[order], return_index=True)
    if not len(wanted):
        return equal
    ends = np.append(begins[1:], len(order))
    waiting = np.ones(len(wanted), bool)  # of each sign, whether there are validation documents not found so far

    def document_of(place: int) -> np.ndarray:
        for store, numbers in validation:
            if place < len(numbers):
                return store.document(int(numbers[place]))
            place -= len(numbers)
        raise IndexError(place)

    for store, numbers in train:
        for start in range(0, len(numbers), _DOCUMENTS):
            part = numbers[start : start + _DOCUMENTS]
            signs = _signs(store, part)
            at = np.minimum(np.searchsorted(wanted, signs), len(wanted) - 1)
            alike = (wanted[at] == signs) & waiting[at]
            for sign, number in zip(at[alike].tolist(), part[alike].tolist(), strict=True):
                if not waiting[sign]:
                    continue
                document = store.document(number)
                left = order[begins[sign] : ends[sign]]
                left = left[~equal[left]]
                equal[left] = [np.array_equal(document_of(one), document) for one in left.tolist()]
                waiting[sign] = not equal[left].all()
    return equal


def _signs(store: TokenStore, numbers: np.ndarray) -> np.ndarray:
    """(D,) uint64: equal for documents of equal text."""
    checksum, size = store.crc32[numbers].astype(np.uint64), store.n_bytes[numbers].astype(np.uint64)
    with np.errstate(over="ignore"):
        return (checksum << np.uint64(32)) ^ (size * _FACTOR) ^ store.lengths[numbers].astype(np.uint64)


def _runs(store: TokenStore, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """The tokens of documents that lie side by side in a store, as one row each: windows go across their borders."""
    is_one = len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1
    borders = [] if is_one else (np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()
    for first, last in pairwise([0, *borders, len(numbers)] if len(numbers) else []):
        begin = int(store.starts(numbers[first : first + 1])[0])
        lengths = store.lengths[int(numbers[first]) : int(numbers[last - 1]) + 1]
        yield store.tokens[begin : begin + int(lengths.sum(dtype=np.int64))]


def _windows(documents: Documents, window: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (W,) of the windows of the first ``most`` tokens of the documents, and where each begins when these stand
    in a row: int32 (W,)."""
    windows, places = np.empty(most, np.uint64), np.empty(most, np.int32)
    at = count = 0
    for store, numbers in documents:
        for tokens in _runs(store, numbers):
            tokens, before = tokens[: most - at], count
            for part in _parts(tokens, window):
                hashes = _hashes(part, window)
                windows[count : count + len(hashes)] = hashes
                count += len(hashes)
            places[before:count] = np.arange(at, at + count - before, dtype=np.int32)
            at += len(tokens)
    return windows[:count], places[:count]


def _parts(tokens: np.ndarray, window: int) -> Iterator[np.ndarray]:
    """``tokens`` (T,) in parts that have ``_CHUNK`` windows each, and every window in one of them."""
    for start in range(0, len(tokens) - window + 1, _CHUNK):
        yield tokens[start : start + _CHUNK + window - 1]


def _hashes(part: np.ndarray, window: int) -> np.ndarray:
    """Hashes of every window of ``part`` (T,): uint64 (T - window + 1,).

    A polynomial in ``_FACTOR`` over the window's tokens, modulo 2**64 (Karp and Rabin, 1987), from prefix sums: the sum
    to the window's end less that to its beginning, over the power that its beginning stands at. Ids are small and near
    each other, and a polynomial in them would be too, so their bits are mixed first.
    """
    sums = np.zeros(len(part) + 1, np.uint64)
    mixed_ids = mixed((part.astype(np.uint64) + np.uint64(1)) * _FACTOR)
    np.cumsum(mixed_ids * _powers(_FACTOR, len(part)), out=sums[1:])
    return (sums[window:] - sums[:-window]) * _powers(_INVERSE, len(sums) - window)


def _powers(factor: np.uint64, n: int) -> np.ndarray:
    """The first ``n``, from 1 on."""
    return _many_powers(int(factor), 1 << (n - 1).bit_length())[:n]


@lru_cache(maxsize=64)
def _many_powers(factor: int, n: int) -> np.ndarray:
    return np.concatenate([[np.uint64(1)], np.cumprod(np.full(n - 1, np.uint64(factor)), dtype=np.uint64)])
