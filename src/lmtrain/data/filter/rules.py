"""What a document must be to be kept, and how its bytes tell that it cannot be.

The rules are asked in the order of :data:`lmtrain.config.commands.filter.RULES`; the first one that a document
fails takes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from lmtrain.config.commands.filter import FilterOptions, listed


@dataclass(frozen=True)
class Rules:
    """The rules of a command; an empty one lets everything pass."""

    keep_any: tuple[str, ...] = ()
    language_of_file: tuple[str, ...] = ()
    keep_regex: tuple[str, ...] = ()
    drop_any: tuple[str, ...] = ()
    drop_regex: tuple[str, ...] = ()
    min_chars: int | None = None
    max_chars: int | None = None

    @classmethod
    def of(cls, options: FilterOptions) -> Rules:
        return cls(
            tuple(listed(options.keep_any)),
            tuple(listed(options.language_of_file)),
            tuple(options.keep_regex),
            tuple(listed(options.drop_any)),
            tuple(options.drop_regex),
            options.min_chars,
            options.max_chars,
        )

    def compiled(self) -> Callable[[str, str | None], tuple[str | None, list[str]]]:
        """A function of a document's text and path: the rule that takes it (None: it is kept), and which of
        ``keep_any`` its text contains (as ``keyword in text`` has it)."""
        keep = [re.compile(pattern) for pattern in self.keep_regex]
        drop = [re.compile(pattern) for pattern in self.drop_regex]
        least, most = self.min_chars or 0, self.max_chars
        suffixes = self.language_of_file

        def judge(text: str, path: str | None) -> tuple[str | None, list[str]]:
            found = [keyword for keyword in self.keep_any if keyword in text]
            rule: str | None = None
            if self.keep_any and not found:
                rule = "keep_any"
            elif suffixes and not (path and path.endswith(suffixes)):
                rule = "language_of_file"
            elif keep and not any(pattern.search(text) for pattern in keep):
                rule = "keep_regex"
            elif self.drop_any and any(keyword in text for keyword in self.drop_any):
                rule = "drop_any"
            elif drop and any(pattern.search(text) for pattern in drop):
                rule = "drop_regex"
            elif len(text) < least:
                rule = "min_chars"
            elif most is not None and len(text) > most:
                rule = "max_chars"
            return rule, found

        return judge


def in_plain_bytes(keywords: Sequence[str]) -> list[bytes]:
    """What is found in the UTF-8 bytes of exactly those texts that contain one of ``keywords``."""
    return [keyword.encode("utf-8") for keyword in keywords]


def in_json_bytes(keywords: Sequence[str]) -> list[bytes] | None:
    r"""What is found in the bytes of every JSON record with a string that contains one of ``keywords``.

    It is found in others too, so where it is found is parsed; the others need not be. None: nothing is.

    A JSON string may write any character as ``\uXXXX``; besides, ``"``, ``\`` and control characters have one other
    spelling and must use it, and ``/`` has two. So a keyword is looked for by its longest part without ``/``, spelled
    as it must be, and wherever a ``\uXXXX`` hides one of the characters of that part. U+FFFD is left out as well: with
    ``--encoding_errors replace`` it stands for any broken bytes.
    """
    parts = [max(re.split("[/\ufffd]", keyword), key=len) for keyword in keywords]
    if not all(parts):
        return None
    spelled = {json.dumps(part, ensure_ascii=False)[1:-1].encode("utf-8") for part in parts}
    return sorted(spelled.union(*map(_hidden, "".join(parts))))


def _hidden(letter: str) -> Iterator[bytes]:
    r"""What a character written as ``\uXXXX``, or as two of them, begins with; digits may be of either case. The last
    one is left out: few needles are found faster, and letters have their neighbours in common."""
    digits = letter.encode("utf-16-be").hex()[:3]
    return (rb"\u" + "".join(cases).encode() for cases in product(*zip(digits, digits.upper(), strict=True)))
