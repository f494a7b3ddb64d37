"""The output folder: that files can be written, flushed and renamed there, and a corner of it to try things in."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmtrain.core.errors import UserError
from lmtrain.core.files import sync_folder

FLAG = "--output_dir"
_PREFIX, _SUFFIX = ".model.rehearsal-", ".tmp"  # what a killed one leaves is cleared when the model is saved
_PROBE_BYTES = 1 << 16
_SPEED_BLOCK, _SPEED_BLOCKS = 1 << 20, 24


@contextmanager
def left_as_found(folder: Path) -> Iterator[None]:
    """Afterwards ``folder`` and those of its parents that were made meanwhile are gone, unless they hold files."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in missing:  # the inner ones first
            with suppress(OSError):
                path.rmdir()


@contextmanager
def scratch_in(folder: Path) -> Iterator[Path]:
    """A folder inside ``folder``, which is made where it is missing; gone afterwards, both of them.

    Raises :class:`UserError` when nothing can be made there.
    """
    with left_as_found(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX, dir=folder))
        except OSError as error:
            raise UserError(f"nothing can be written to {folder}: {error.strerror or error}", flag=FLAG) from error
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def check_writing(scratch: Path) -> None:
    """Write a file, flush it, rename it over another, flush the folder: what a checkpoint needs.

    Raises :class:`UserError` with the step that fails.
    """
    step = "written"
    try:
        first, second = scratch / "probe.tmp", scratch / "probe"
        second.touch()
        with first.open("wb") as stream:
            stream.write(bytes(_PROBE_BYTES))
            stream.flush()
            step = "flushed to disk"
            os.fsync(stream.fileno())
        step = "renamed"
        first.replace(second)
        step = "flushed to disk"
        sync_folder(scratch)
        step = "removed"
        second.unlink()
    except OSError as error:
        raise UserError(
            f"in {scratch.parent} a file cannot be {step} ({error.strerror or error}); choose another folder",
            flag=FLAG,
        ) from error


def write_speed(scratch: Path) -> float:
    """Bytes a second that reach the disk there, hashed and flushed as a checkpoint is. Takes a fraction of a second."""
    block = os.urandom(_SPEED_BLOCK)
    digest = hashlib.sha256()
    path = scratch / "speed"
    began = time.perf_counter()
    with path.open("wb", buffering=0) as stream:
        for _ in range(_SPEED_BLOCKS):
            stream.write(block)
            digest.update(block)
        os.fsync(stream.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return _SPEED_BLOCKS * _SPEED_BLOCK / max(seconds, 1e-6)


def existing(folder: Path) -> Path:
    """``folder``, or the nearest of its parents that is there."""
    while not folder.exists():
        folder = folder.parent
    return folder
