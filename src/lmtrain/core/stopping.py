"""Asked to stop: by a signal of the user or the cluster, or because the time is up.

=======================  ===========================================================================
preparing, scoring       nothing would be lost: it ends at once, with :class:`Interrupted`
training                 the step is finished, a checkpoint saved, and then it ends
a second signal          ends at once; what has no checkpoint yet is lost
=======================  ===========================================================================

SIGHUP, which comes when a terminal or its connection is closed, is one of these signals, but not under ``nohup``, which
means it to be ignored.

A launcher and its workers often get the same signal each, and the launcher sends it on: what arrives within
``SAME_MOMENT`` seconds of the first counts as one.

The end of ``--max_minutes`` is a signal too, of the process's own timer. Where what there is has to be saved first, it
comes too late for that: there :meth:`Stop.look` asks in time.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from lmtrain.core.console import Say, duration, say
from lmtrain.core.errors import BeginsAnew, Interrupted

SAME_MOMENT: Final = 2.0
"""Seconds. A scheduler signals all processes of a job in much less; a person who asks twice takes about so long."""

_NAMES: Final = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGBREAK")  # the last is Windows' own, which has no SIGUSR1
_HANGUP: Final = getattr(signal, "SIGHUP", None)
_TIMER: Final = getattr(signal, "SIGALRM", None)  # Windows has none: there only who looks hears that the time is up
_AT_ONCE: Final = 1e-6  # seconds; zero would be no timer


class Stop:
    """Whether the run was asked to stop, and how soon it has to.

    ``minutes`` after its making it asks itself, early enough for another step and a checkpoint (:meth:`look`).
    ``clock`` gives seconds.
    """

    def __init__(
        self, *, minutes: float | None = None, say: Say = say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.reason: str | None = None
        self._say = say
        self._clock = clock
        self._process = os.getpid()
        self._signalled: float | None = None  # when the first came
        self._deferred = 0
        self._until = None if minutes is None else clock() + 60 * minutes
        self._time_is_up = "" if minutes is None else f"the {duration(60 * minutes)} of --max_minutes are over"
        self._looked: float | None = None
        self._longest = 0.0

    @property
    def asked(self) -> bool:
        return self.reason is not None

    # ---- signals -----------------------------------------------------------------------------------

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Take the signals, and put the earlier handlers back. Only the main thread can; elsewhere nothing happens."""
        before: dict[int, Any] = {}
        timed = self._until is not None and _TIMER is not None
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name, None) for name in _NAMES]
            hangup = None if _HANGUP is None or signal.getsignal(_HANGUP) == signal.SIG_IGN else _HANGUP
            for number in [*numbers, hangup, _TIMER if timed else None]:
                if number is not None:
                    before[number] = signal.signal(number, self._received)
            if timed and self._until is not None:
                signal.setitimer(signal.ITIMER_REAL, max(_AT_ONCE, self._until - self._clock()))
        try:
            yield self
        finally:
            if _TIMER in before:
                signal.setitimer(signal.ITIMER_REAL, 0)
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
        if os.getpid() != self._process:  # a copy of this process, which works for it and ends with it
            return
        if number == _TIMER:
            if not self.asked:
                self._end_with(self._time_is_up)
            return
        name = signal.Signals(number).name
        if self._signalled is None:  # the time may have asked before
            self._signalled = self._clock()
            if self.asked and self._deferred:
                self._say("stopping", f"{name}: it is ending already; once more ends at once")
            self._end_with(name)
        elif self._clock() - self._signalled >= SAME_MOMENT:
            raise Interrupted(f"a second signal ({name}) did not wait for the checkpoint")

    def _end_with(self, reason: str) -> None:
        self.ask(reason)
        if not self._deferred:
            raise Interrupted(reason)

    def ask(self, reason: str) -> None:
        """Ask once; who asks later changes nothing."""
        if self.asked:
            return
        self.reason = reason
        if self._deferred:
            more = "; once more ends at once" if self._signalled is not None else ""  # one after the time is a first
            self._say("stopping", f"{reason}: what is under way is finished and saved first{more}")

    # ---- the time ----------------------------------------------------------------------------------

    def begin_looking(self) -> None:
        """What :meth:`look` counts begins now."""
        self._looked = self._clock()

    def look(self, save_seconds: float) -> bool:
        """Whether to stop here. It is asked too when the time would be up before the next look and a checkpoint.

        A checkpoint takes ``save_seconds``; until the next look it may take as long as the longest time between two.
        """
        if self._until is not None:
            now = self._clock()
            self._longest = max(self._longest, now - (now if self._looked is None else self._looked))
            self._looked = now
            if now + self._longest + save_seconds >= self._until:
                self.ask(self._time_is_up)
        return self.asked


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """Around a command that removes what it made, however it ends: a signal lets it do so, and it begins anew."""
    try:
        with Stop().listening():
            yield
    except Interrupted as error:
        raise BeginsAnew(str(error)) from None
