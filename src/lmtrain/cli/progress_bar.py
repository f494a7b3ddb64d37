"""A bar for work of which the number of pieces is known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(topic: str) -> Iterator[Callable[[int, int], None] | None]:
    """What to call with the pieces done and all of them; None outside of a terminal. The bar goes when it is full:
    results follow."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(f"  {topic}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task(topic, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
