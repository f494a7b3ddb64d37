"""The output folder: one filter at a time, nothing of other people's, and what the disk says in one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmtrain.core.errors import UserError
from lmtrain.data.filter.state import FOLDER, State


@contextmanager
def claimed(output: Path) -> Iterator[None]:
    """The output folder for this process alone; other people's folders are left alone."""
    from filelock import FileLock, Timeout

    folder = output / FOLDER
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; name a folder", flag="--output")
    if output.is_dir() and not folder.is_dir() and any(output.iterdir()):
        raise UserError(f"{output} holds other files; name another folder", flag="--output")
    made = not output.exists()
    with disk_problems(output):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another lmtrain filter writes to {output}; wait for it, or name another folder",
                        flag="--output") from None  # fmt: skip
    try:
        yield
    except UserError:
        if State.load(folder) is None and made:
            clear(output)
            lock.release()
            shutil.rmtree(folder, ignore_errors=True)
            if not any(output.iterdir()):
                output.rmdir()
        raise
    finally:
        lock.release()


def clear(output: Path) -> None:
    """Delete what a filter wrote."""
    for path in [*output.glob("part-*.parquet"), *output.glob("part-*.jsonl.zst"), *output.glob(".part-*.tmp")]:
        path.unlink()
    for path in (output / FOLDER).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


@contextmanager
def disk_problems(output: Path) -> Iterator[None]:
    """What the system says about the output, in one line; about the input :meth:`File.explained` has spoken."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise UserError(f"{output} cannot be written: {error.strerror}; once that is mended the same command goes on",
                        flag="--output") from error  # fmt: skip
