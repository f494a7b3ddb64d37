"""What a person sees meanwhile: a bar in a terminal, else a line every now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from lmtrain.core.console import Say, amount
from lmtrain.data.filter.account import Account
from lmtrain.data.filter.meter import Read

_EVERY = 15.0  # seconds between lines where there is no terminal
_REDRAWN = 0.2


class Progress:
    """Shows how much of ``total`` bytes on disk is done, MB/s, and the share that is kept."""

    def __init__(self, total: int, before: int, say: Say) -> None:
        """``before``: bytes that were done when this session began."""
        self._total = total
        self._before = before
        self._say = say
        self._began = self._last = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("filter"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=Console(file=sys.stderr, highlight=False),
                transient=True,
                auto_refresh=False,  # a thread of its own would stand in the way of forking
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=max(1, self._total), completed=self._before, text="")
        return self

    def show(self, read: Read, account: Account) -> None:
        """``read``: in this session; ``account``: of everything so far."""
        now = time.monotonic()
        if now - self._last < (_REDRAWN if self._bar else _EVERY):
            return
        self._last = now
        speed, done = read.text / max(1e-9, now - self._began), self._before + read.disk
        text = f"{amount(speed, 'B')}/s, {account.kept.share(account.seen):.1%} kept"
        if self._bar:
            self._bar.update(self._task, completed=done, text=text, refresh=True)
        else:
            self._say("filter", f"{amount(done, 'B')} of {amount(self._total, 'B')}, {text}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
