"""``--model_size`` as people write it: 10m, 124M, 1.3b."""

from __future__ import annotations

import re

from lmtrain.core.errors import UserError

_FLAG = "--model_size"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_SIZE = re.compile(r"([0-9][0-9_,]*\.?[0-9]*(?:e[0-9]+)?)\s*([kmbg]?)", re.IGNORECASE)


def parameters(text: str) -> int:
    """``124m`` → 124,000,000. Raises :class:`UserError`."""
    found = _SIZE.fullmatch(text.strip())
    number = float(re.sub("[_,]", "", found[1])) * _UNITS[found[2].lower()] if found else 0
    if not 1 <= number < 1e15:
        raise UserError(f"{text!r} is no number of parameters; write it as 10m, 124m or 1.3b", flag=_FLAG)
    return round(number)
