"""The files below a folder or of a pattern. Links are followed, but not in circles."""

# Paths are strings here, as there may be many: see opening.
# ruff: noqa: PTH116, PTH120, PTH206, PTH207

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from functools import cache

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
    """Files and folders of a glob, but for those that ``**`` found on a way that comes to a folder twice: it follows a
    link in a circle some forty times."""
    # Not Path.glob: its pattern must be relative, and it takes hidden files.
    found = glob.glob(pattern, recursive=True)
    if "**" not in pattern:
        return found
    above = pattern.partition("**")[0].count(os.sep)  # of a path, the parts that are no folder `**` entered

    @cache
    def known(folder: str) -> tuple[int, int]:
        about = os.stat(folder or os.curdir)
        return about.st_dev, about.st_ino

    def is_straight(path: str) -> bool:
        way = []
        for _ in range(path.count(os.sep) - above + 1):
            way.append(known(path := os.path.dirname(path)))
        return len(set(way)) == len(way)

    return [path for path in found if is_straight(path)]


def parts(path: str) -> list[str]:
    """Sorting by parts keeps a folder's files together: ``a/z`` before ``a.txt``."""
    return path.split(os.sep)
