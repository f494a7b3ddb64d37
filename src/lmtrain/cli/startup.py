"""Starting up sooner: importing torch and transformers takes longer than many a first step."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from lmtrain.core.allocator import use_large_pages
from lmtrain.core.console import told_to
from lmtrain.core.mkl import use_intel_kernels

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import under this what brings torch along; the libraries are quiet from then on.

    The millions of objects that those modules make stay until the end, yet the garbage collector walks through
    them again and again while they are made: 1.3 s of 8.3 s here. It rests meanwhile, and afterwards counts them
    among what need not be looked at, which makes every later collection cheaper too. What a module prints while it is
    imported (transformers 5.23: that ``WANDB_MODE`` is offline) is kept out of a command's result.
    """
    use_large_pages()
    use_intel_kernels()
    with _without_collecting(), redirect_stdout(told_to()):
        yield
        from lmtrain.models.quiet import quiet_for_commands

        quiet_for_commands()


@contextmanager
def light_imports() -> Iterator[None]:
    """Import under this what brings NumPy along and not torch, before processes are forked.

    NumPy's OpenBLAS begins a thread for each core when it is loaded, and it waits for work in a loop: 50 ms of 180 here
    until NumPy is there, for a command that multiplies no matrix. It is told to do without; what the command starts
    hears nothing of that.
    """
    was_asked = _BLAS_THREADS in os.environ
    os.environ.setdefault(_BLAS_THREADS, "1")
    try:
        with _without_collecting():
            yield
    finally:
        if not was_asked:
            del os.environ[_BLAS_THREADS]


@contextmanager
def _without_collecting() -> Iterator[None]:
    """What is made meanwhile is not looked at for garbage, now or later."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_on:
            gc.enable()
