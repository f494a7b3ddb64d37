"""From token ids back to text, as they come: characters of several tokens, spaces between words, stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BEFORE = 6  # tokens that decide how the next is written: more than the bytes of any character
_BROKEN = "\ufffd"  # stands for bytes that are no character, or none yet


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ``ids`` without special tokens, its spaces as they are."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def continuation(tokenizer: Any, prompt: Sequence[int], new: Sequence[int]) -> str:
    """The new text: what decoding all adds to decoding the prompt.

    Decoding the new ids alone would lose the space before the first word with SentencePiece tokenizers.
    """
    before, both = decode(tokenizer, prompt), decode(tokenizer, [*prompt, *new])
    if both.startswith(before):
        return both[len(before) :]
    # a tokenizer whose decoding of the beginning changes with what follows
    return decode(tokenizer, new)


class TextSoFar:
    """The text of tokens that come one by one: :meth:`add` gives what each of them makes certain.

    A character whose bytes are spread over tokens comes with the last of them. Each token is decoded behind a few
    before it, so that a text of n tokens costs n short decodings::

        tokens of "né"    [n] [Ã] [©]     (the two bytes of é)
        add gives         "n" ""  "é"
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt[-BEFORE:])
        self._start, self._written = 0, len(self._ids)

    def add(self, token: int) -> str:
        self._ids.append(token)
        before = decode(self._tokenizer, self._ids[self._start : self._written])
        now = decode(self._tokenizer, self._ids[self._start :])
        if len(now) <= len(before) or now.endswith(_BROKEN):
            return ""
        self._start, self._written = self._written, len(self._ids)
        return now[len(before) :]


def before_stop(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """``text`` up to the first stop string in it, and which one it is; of two at one place, the longer."""
    found = [(place, -len(stop), stop) for stop in stops if (place := text.find(stop)) >= 0]
    if not found:
        return text, None
    place, _, stop = min(found)
    return text[:place], stop


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may be the beginning of a stop string.

    >>> held_back("one\\n", ["\\n\\n", "end"])
    1
    """
    longest = max(map(len, stops), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(len(stop) > length and stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0
