"""Whether files are still what they were, by size and time: from command to command, and while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmtrain.core.errors import UserError
from lmtrain.core.types import Source
from lmtrain.data.sources.segments import file_of


def known_by(source: Source) -> list[Any]:
    """What tells that a source is the one that was read before, without reading it where it is a file on disk."""
    file = file_of(source)
    stamp = file.stamp() if file and not file.owned else None
    return [source.name, *(stamp or [source.content_hash()])]


class Stamps:
    """The files of some sources as they are now, by size and time; those on object storage are taken as they come."""

    def __init__(self, sources: Sequence[Source]) -> None:
        parts = (part for source in sources for part in getattr(source, "parts", [source]))
        self._before = [(file, file.stamp()) for part in parts if (file := file_of(part)) is not None]

    def changed(self) -> str:
        """Which of them are others by now, in words; empty: none."""
        names = [file.name for file, before in self._before if file.stamp() != before]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    def require_unchanged(self) -> None:
        """Raise :class:`UserError` where some are others by now."""
        if names := self.changed():
            raise UserError(f"{names} changed while it was read; type the same command again when nobody writes to it")
