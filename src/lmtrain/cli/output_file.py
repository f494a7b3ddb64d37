"""The file that a command writes its results to, tried before the work and not after an hour of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError, about
from lmtrain.core.files import atomic_file


def writable(name: str, flag: str = "--output") -> Path:
    """The path that was typed, in a folder that is there now; of a link what it leads to.

    Raises :class:`UserError` where no file can be written.
    """
    path = user_path(name)
    path = path.resolve() if path.is_symlink() else path
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file", flag=flag)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with about(flag), suppress(_TriedError), atomic_file(path):
            raise _TriedError  # nothing is left of it, and nothing that was there is touched
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}", flag=flag) from error
    return path


class _TriedError(Exception):
    """The file could be written."""
