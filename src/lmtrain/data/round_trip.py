"""Does a text come back from its tokens? Tried on text, on every byte that text can hold, and on all 256 by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_BYTE_NAMES = [f"<0x{byte:02X}>" for byte in range(256)]
# Characters whose UTF-8 holds every byte that UTF-8 has: ASCII, then each lead byte with each continuation.
_CHARACTERS = [*range(0x800), *range(0x800, 0x10000, 64), *range(0x10000, 0x110000, 4096)]


def tried(backend: Any, texts: Iterable[str]) -> tuple[str | None, int]:
    """The first thing that does not come back from ``backend`` (a ``tokenizers.Tokenizer``), in words, None: all does;
    and how many tokens ``texts`` are: together, since encoding them is what takes the time.

    Special tokens are neither added nor left out. Looked at: ``texts``; characters with every byte of UTF-8; and
    whether each of the 256 bytes has a token, those too that no valid text holds.
    """
    characters = "".join(chr(c) for c in _CHARACTERS if not 0xD800 <= c < 0xE000)
    whole = [*texts, characters]
    ids = [encoding.ids for encoding in backend.encode_batch_fast(whole, add_special_tokens=False)]
    return _lost(backend, whole, ids), sum(map(len, ids[:-1]))


def _lost(backend: Any, texts: list[str], ids: list[list[int]]) -> str | None:
    for text, back in zip(texts, backend.decode_batch(ids, skip_special_tokens=False), strict=True):
        if back != text:
            return _difference(text, back)
    names = zip(_letters(), _BYTE_NAMES, strict=True)
    without = [byte for byte, named in enumerate(names) if all(backend.token_to_id(name) is None for name in named)]
    return f"{len(without)} of the 256 bytes have no token, the first {without[0]:#04x}" if without else None


def _letters() -> list[str]:
    """The characters that stand for the bytes in byte-level vocabularies (GPT-2's ``bytes_to_unicode``): printable
    Latin-1 for itself, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _difference(text: str, back: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
    begin = max(0, at - 8)
    return f"{text[begin : at + 8]!r} comes back as {back[begin : at + 8]!r}"
