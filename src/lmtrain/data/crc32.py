"""CRC-32 of the stretches of a stream: of chunks, and of two stretches from that of each."""

from __future__ import annotations

import zlib
from typing import Any


class ChunkSums:
    """CRC-32 of each ``size`` bytes of a stream, of the last ones as many as there are."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.crc32: list[int] = []
        self._filled = size  # bytes in the last chunk

    def update(self, data: bytes | memoryview) -> None:
        rest = memoryview(data).cast("B")
        while len(rest):
            if self._filled == self.size:
                self.crc32.append(0)
                self._filled = 0
            part = rest[: self.size - self._filled]
            self.crc32[-1] = zlib.crc32(part, self.crc32[-1])
            self._filled += len(part)
            rest = rest[len(part) :]

    def as_json(self) -> dict[str, Any]:
        """For the manifest: optional there, and part of no key."""
        return {"bytes": self.size, "crc32": self.crc32}


def crc32_combine(first: int, second: int, length: int) -> int:
    """The CRC-32 of two stretches of bytes from that of each; ``length``: bytes of the second.

    Appending zero bytes is linear over GF(2): a 32 × 32 matrix for one zero bit is squared for 2, 4, 8, … of them and
    applied for each bit set in the number of bits of the second stretch (Adler, zlib's crc32_combine).
    """
    matrix = [0xEDB88320, *(1 << bit for bit in range(31))]  # one zero bit: shift right, reduce by the polynomial
    bits = 8 * length
    while bits:
        if bits & 1:
            first = _times(matrix, first)
        matrix = [_times(matrix, column) for column in matrix]
        bits >>= 1
    return first ^ second


def _times(matrix: list[int], vector: int) -> int:
    result = 0
    for column in matrix:
        if not vector:
            break
        if vector & 1:
            result ^= column
        vector >>= 1
    return result
