"""Asked to stop: by a signal of the user or the cluster, or because the time is up.

=======================  ===========================================================================
preparing, scoring       nothing would be lost: it ends at once, with :class:`Interrupted`
training                 the step is finished, a checkpoint saved, and then it ends
a second signal          ends at once; what has no checkpoint yet is lost
=======================  ===========================================================================

A launcher and its workers often get the same signal each, and the launcher sends it on: what arrives within
``SAME_MOMENT`` seconds of the first counts as one.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from lmtrain.core.console import Say, duration, say
from lmtrain.core.errors import Interrupted

SAME_MOMENT: Final = 2.0
"""Seconds. A scheduler signals all processes of a job in much less; a person who asks twice takes about so long."""

_NAMES: Final = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGBREAK")  # the last is Windows' own, which has no SIGUSR1


class Stop:
    """Whether the run was asked to stop, and how soon it has to.

    ``minutes`` after its making it asks itself, early enough for another step and a checkpoint (:meth:`step_took`).
    ``clock`` gives seconds.
    """

    def __init__(
        self, *, minutes: float | None = None, say: Say = say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.reason: str | None = None
        self._say = say
        self._clock = clock
        self._first = 0.0
        self._deferred = 0
        self._until = None if minutes is None else clock() + 60 * minutes
        self._minutes = minutes
        self._slowest_step = 0.0

    @property
    def asked(self) -> bool:
        return self.reason is not None

    # ---- signals -----------------------------------------------------------------------------------

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Take the signals, and put the earlier handlers back. Only the main thread can; elsewhere nothing happens."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name, None)
                if number is not None:
                    before[number] = signal.signal(number, self._received)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A part that saves what it has before it ends: a first signal is left to :attr:`asked`."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    def _received(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.asked:
            if self._clock() - self._first < SAME_MOMENT:
                return
            raise Interrupted(f"a second signal ({name}) did not wait for the checkpoint")
        self.ask(name)
        if not self._deferred:
            raise Interrupted(name)

    def ask(self, reason: str) -> None:
        """Ask once; who asks later changes nothing."""
        if self.asked:
            return
        self.reason, self._first = reason, self._clock()
        if self._deferred:
            self._say("stopping", f"{reason}: the step is finished and saved first; once more ends at once")

    # ---- the time ----------------------------------------------------------------------------------

    def step_took(self, seconds: float, save_seconds: float) -> None:
        """Ask when another such step and a checkpoint, which takes ``save_seconds``, would come too late."""
        self._slowest_step = max(self._slowest_step, seconds)
        if self._until is not None and self._clock() + self._slowest_step + save_seconds >= self._until:
            self.ask(f"the {duration(60 * (self._minutes or 0))} of --max_minutes are over")
