"""The files below a folder or of a pattern. Links are followed, but not in circles."""

# Paths are strings here, as there may be many: see opening.
# ruff: noqa: PTH116, PTH118, PTH206, PTH207

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import suppress

from lmtrain.data.sources.text import PassedOver


def files_under(folder: str, over: PassedOver, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Regular files below a folder; what else is there is counted in ``over``. ``above``: the folders passed."""
    try:
        known = os.stat(folder)
        entries = list(os.scandir(folder))
    except OSError as error:
        over.skipped["unreadable folder"] += 1
        over.notes.append(f"{folder} was passed over: {error.strerror}")
        return
    here = (known.st_dev, known.st_ino)
    if here in above:
        return
    for entry in entries:
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link that leads to itself, through a file, or where one may not look
            is_folder = is_file = False
        if entry.name.startswith("."):
            over.skipped["hidden file or folder"] += 1
        elif is_folder:
            yield from files_under(entry.path, over, above | {here})
        elif is_file:
            yield entry.path
        else:
            over.skipped["special file or broken link"] += 1


def matches(pattern: str) -> list[str]:
    """Files and folders of a glob, in which ``**`` stands for any folders. The library's own follows a link that comes
    back to a folder above it some forty times, and two of them 2⁴⁰ times."""
    # Not Path.glob: its pattern must be relative, and it takes hidden files.
    names = pattern.split(os.sep)
    if "**" not in names:
        return glob.glob(pattern)
    at = names.index("**")
    above, below = os.sep.join(names[:at]), os.sep.join(name for name in names[at + 1 :] if name)
    tops = glob.glob(f"{above}{os.sep}") if at else [""]
    found: dict[str, None] = {}  # two ** in a row find a file more than once
    for top in tops:
        for folder in _folders(top):
            found |= dict.fromkeys(matches(f"{glob.escape(folder)}{below or '*'}"))
    return list(found)


def _folders(top: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """``top`` and the folders below it, each with a separator at its end; hidden ones are left out."""
    try:
        about = os.stat(top or os.curdir)
        entries = list(os.scandir(top or os.curdir))
    except OSError:  # gone, or one may not look, as for the library
        return
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    yield top
    for entry in entries:
        with suppress(OSError):  # a link that leads to itself
            if not entry.name.startswith(".") and entry.is_dir():
                yield from _folders(f"{top}{entry.name}{os.sep}", above | {here})


def parts(path: str) -> list[str]:
    """Sorting by parts keeps a folder's files together: ``a/z`` before ``a.txt``."""
    return path.split(os.sep)
