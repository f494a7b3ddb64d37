"""Starting up sooner: importing torch and transformers takes longer than many a first step."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import under this what brings torch along.

    The millions of objects that those modules make stay until the end, yet the garbage collector walks through
    them again and again while they are made: 1.3 s of 8.3 s here. It rests meanwhile, and afterwards counts them
    among what need not be looked at, which makes every later collection cheaper too.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_on:
            gc.enable()
