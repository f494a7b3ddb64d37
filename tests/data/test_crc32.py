"""CRC-32 of two stretches from that of each, and of the chunks of a stream, as zlib gives it of the bytes."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from lmtrain.data.crc32 import ChunkSums, crc32_combine


@given(first=st.binary(max_size=300), second=st.binary(max_size=3000))
def test_of_two_stretches(first: bytes, second: bytes) -> None:
    assert crc32_combine(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_of_a_stretch_that_is_long() -> None:
    zeros, number = bytes(1 << 20), zlib.crc32(b"before")
    for _ in range(40):
        number = zlib.crc32(zeros, number)
    of_zeros = 0
    for _ in range(40):
        of_zeros = zlib.crc32(zeros, of_zeros)
    assert crc32_combine(zlib.crc32(b"before"), of_zeros, 40 << 20) == number


@given(parts=st.lists(st.binary(max_size=50), max_size=8), size=st.integers(1, 40))
def test_of_chunks_however_the_stream_comes(parts: list[bytes], size: int) -> None:
    sums, whole = ChunkSums(size), b"".join(parts)
    for part in parts:
        sums.update(part)
    assert sums.crc32 == [zlib.crc32(whole[start : start + size]) for start in range(0, len(whole), size)]
