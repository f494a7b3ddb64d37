"""Where records come from."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from lmtrain.core.errors import UserError


class Origin(Protocol):
    """Where records come from: a file, or a split of a data set."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int | None:
        """Bytes on disk; None: count the bytes of the text instead."""

    def content_hash(self) -> str: ...

    def error(self, text: str) -> UserError:
        """An error whose text begins with the name."""

    def explained(self) -> AbstractContextManager[None]:
        """Turns errors of the system into a :class:`UserError`."""
