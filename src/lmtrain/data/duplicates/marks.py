"""What a text is known by, worked out wherever it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmtrain.data.duplicates.bands import Bands, signatures
from lmtrain.data.duplicates.shingles import shingles


@dataclass(frozen=True)
class Marks:
    """Of n texts: ``digests`` (n, 2) uint64, 128 bits of the text's BLAKE2b; with near duplicates also the ``sets`` of
    shingles and the ``keys`` (n, bands) uint64 of the bands."""

    digests: np.ndarray
    sets: tuple[np.ndarray, ...] = ()
    keys: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def bytes(self) -> int:
        keys = self.keys.nbytes if self.keys is not None else 0
        return self.digests.nbytes + keys + sum(values.nbytes for values in self.sets)


def marks_of(texts: Sequence[str], bands: Bands | None = None) -> Marks:
    """Marks of texts; with ``bands`` those for near duplicates too."""
    data = [text.encode("utf-8") for text in texts]
    joined = b"".join(hashlib.blake2b(text, digest_size=16).digest() for text in data)
    digests = np.frombuffer(joined, dtype="<u8").reshape(-1, 2)
    if bands is None:
        return Marks(digests)
    sets = tuple(shingles(data))
    return Marks(digests, sets, bands.keys(signatures(sets)))
