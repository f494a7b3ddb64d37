"""What may pass is tried again, for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lmtrain.data.remote.failures import UnreachableError, explained

_T = TypeVar("_T")
PATIENCE = 120.0
"""Seconds for which a running training asks again before it saves a checkpoint and ends: a server restarts in less."""
_LONGEST_PAUSE = 8.0


def patiently(
    work: Callable[[], _T],
    address: str,
    flag: str | None = None,
    *,
    patience: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> _T:
    """What ``work`` returns, asked again after 0.25, 0.5, 1, … 8 s while the storage does not answer.

    Raises :class:`UnreachableError` when it did not for ``patience`` seconds (:data:`PATIENCE`), and anything that
    will not pass by itself at once. They are counted from the first failure: an upload may take hours before it.
    """
    until: float | None = None
    wait = 0.25
    while True:
        try:
            with explained(address, flag):
                return work()
        except UnreachableError as error:
            until = clock() + (PATIENCE if patience is None else patience) if until is None else until
            if not error.passing or clock() + wait > until:
                raise
        pause(wait)
        wait = min(2 * wait, _LONGEST_PAUSE)
