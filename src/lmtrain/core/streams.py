"""Random numbers as functions of counters, never of history.

Every random choice names its purpose and its counters: ``stream(seed, "order", epoch)``. Nothing is
consumed, so the choice for epoch 7 needs no epoch 6, and a resumed run draws what the straight run drew.
The generator is Philox (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011), which numpy
keeps stable across versions.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A generator of its own for one purpose at one place: equal arguments, equal numbers."""
    return np.random.Generator(np.random.Philox(key=derive(seed, purpose, *counters)))


def derive(seed: int, purpose: str, *counters: int) -> int:
    """A 128-bit number that depends on every argument; take ``% 2**63`` of it to seed torch."""
    text = "/".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of ``count`` examples in ``epoch``: int64 of shape (count,)."""
    return stream(seed, "order", epoch).permutation(count)


def mixed(words: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64: a bijection of 64-bit words that leaves no visible structure.

    Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014.
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
