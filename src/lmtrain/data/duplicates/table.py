"""A hash table from numbers to numbers in 16 to 32 bytes an entry, where a ``dict`` takes some 150."""

from __future__ import annotations

import numpy as np

_FULL = 0.75  # share of the slots; then it doubles
_FACTOR = 0x9E3779B97F4A7C15  # keys that differ in few bits begin at different places (Knuth's multiplicative hashing)
_MASK = (1 << 64) - 1


class Table:
    """Several values for each key: keys from 1 to 2**64 − 1, values from 0 to 2**32 − 1."""

    def __init__(self, slots: int = 1 << 12) -> None:
        """``slots`` is a power of two."""
        self._size = 0
        self._begin(slots)

    def _begin(self, slots: int) -> None:
        self._slots = slots
        self._shift = 65 - slots.bit_length()
        # looked at one by one, a memoryview is three times as fast as the array
        self._keys = np.zeros(slots, dtype=np.uint64).data
        self._values = np.zeros(slots, dtype=np.uint32).data

    def __len__(self) -> int:
        return self._size

    @property
    def bytes(self) -> int:
        return 12 * self._slots

    def values(self, key: int) -> list[int]:
        """The values of a key, in the order in which they were added."""
        keys, at, found = self._keys, (key * _FACTOR & _MASK) >> self._shift, []
        while held := keys[at]:
            if held == key:
                found.append(self._values[at])
            at = (at + 1) % self._slots
        return found

    def add(self, key: int, value: int) -> None:
        if self._size >= _FULL * self._slots:
            self._grow()
        keys, at = self._keys, (key * _FACTOR & _MASK) >> self._shift
        while keys[at]:
            at = (at + 1) % self._slots
        keys[at] = key
        self._values[at] = value
        self._size += 1

    def _grow(self) -> None:
        keys, values = self._keys, self._values
        self._begin(2 * self._slots)
        self._size = 0
        # from an empty slot on, so that the values of a key keep their order where a cluster wraps around
        first = next(at for at, key in enumerate(keys) if not key)
        for at in range(first, first + len(keys)):
            if key := keys[at % len(keys)]:
                self.add(key, values[at % len(keys)])
