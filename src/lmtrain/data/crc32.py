"""CRC-32 of the stretches of a stream: of chunks, and of two stretches from that of each."""

from __future__ import annotations

import zlib
from functools import cache
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


_POLYNOMIAL = 0xEDB88320  # of CRC-32, its lowest coefficient first
_ONE = 1 << 31  # the polynomial 1 in that order


def crc32_combine(first: int, second: int, length: int) -> int:
    """The CRC-32 of two stretches of bytes from that of each; ``length``: bytes of the second.

    A bit appended to the first multiplies its CRC by x modulo the polynomial. So it is multiplied by x^(2^k) for each
    bit k that is set in the number of bits appended (Adler, zlib's crc32_combine): a tenth of a millisecond.
    """
    bits, power = 8 * length, 0
    while bits:
        if bits & 1:
            first = _times(_square(power), first)
        bits >>= 1
        power += 1
    return first ^ second


@cache
def _square(power: int) -> int:
    """x^(2^power) modulo the polynomial."""
    if not power:
        return _ONE >> 1
    root = _square(power - 1)
    return _times(root, root)


def _times(one: int, other: int) -> int:
    """The product of two polynomials modulo that of CRC-32."""
    product = 0
    while one:
        if one & _ONE:
            product ^= other
        one = one << 1 & 0xFFFFFFFF
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product
