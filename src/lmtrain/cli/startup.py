"""Starting up sooner: importing torch and transformers takes longer than many a first step."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from lmtrain.core.allocator import use_large_pages
from lmtrain.core.console import told_to


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import under this what brings torch along; the libraries are quiet from then on.

    The millions of objects that those modules make stay until the end, yet the garbage collector walks through
    them again and again while they are made: 1.3 s of 8.3 s here. It rests meanwhile, and afterwards counts them
    among what need not be looked at, which makes every later collection cheaper too. What a module prints while it is
    imported (transformers 5.23: that ``WANDB_MODE`` is offline) is kept out of a command's result.
    """
    use_large_pages()
    was_on = gc.isenabled()
    gc.disable()
    try:
        with redirect_stdout(told_to()):
            yield
            from lmtrain.models.quiet import quiet_for_commands

            quiet_for_commands()
        gc.freeze()
    finally:
        if was_on:
            gc.enable()
