"""What to say of a path that leads nowhere."""

from __future__ import annotations

import difflib
from pathlib import Path


def no_such(typed: str, path: Path) -> str:
    """``typed`` is what the user wrote for ``path``: where was looked, and which neighbour has a similar name."""
    try:
        target = path.readlink() if path.is_symlink() else None
    except (OSError, ValueError):
        target = None
    if target is not None:
        return f"{typed} is a broken link: it leads to {target}, which is not there"
    looked = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
    try:
        near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    except (OSError, ValueError):
        near = []
    return f"no such file or folder: {typed}{looked}" + (f"; did you mean {path.parent / near[0]}?" if near else "")
