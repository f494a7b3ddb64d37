"""``--shard I/N``: which part of a preparation a command makes."""

from __future__ import annotations

import re

from lmtrain.core.errors import UserError

_FLAG = "--shard"


def shard_of(text: str) -> tuple[int, int]:
    """``(I, N)``, counted from 0 as array jobs are; raises :class:`UserError`.

    >>> shard_of("3/64")
    (3, 64)
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found:
        raise UserError(f"{text!r} is no part; the first of four is 0/4, the last 3/4", flag=_FLAG)
    number, count = int(found[1]), int(found[2])
    if not number < count:
        last = f"the last of {count} is {count - 1}/{count}" if count else "there is at least one part: 0/1"
        raise UserError(f"parts are counted from 0, and {last}; {text} is none", flag=_FLAG)
    return number, count
