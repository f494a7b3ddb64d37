"""Token stores named where text is named: taken as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmtrain.core.errors import UserError
from lmtrain.core.types import Piece, Tally
from lmtrain.data.store import BIN, IDX, MANIFEST


@dataclass(frozen=True, slots=True)
class StoreSource:
    """A token store, in a folder or at an address (``place``); ``name`` is what may be shown of it.

    It holds tokens and no text: who wants its pieces is told so.
    """

    name: str
    place: str
    flag: str
    token: str | None = field(default=None, repr=False)  # of the hub

    def content_hash(self) -> str:
        raise self.without_text()

    def pieces(self, tally: Tally) -> Iterator[Piece]:
        raise self.without_text()

    def without_text(self) -> UserError:
        return UserError(
            f"{self.name} is a token store (made by lmtrain prepare) and holds no text; name the text it was made of",
            flag=self.flag,
        )


def is_store(folder: Path) -> bool:
    """Whether a folder is a token store, by what lies in it."""
    return all((folder / name).is_file() for name in (MANIFEST, BIN, IDX))


def store_among(files: Sequence[str], folder: str, flag: str) -> str | None:
    """``folder`` if these files, by their names, make it a token store; None if not.

    Raises :class:`UserError` where they make folders in it token stores: their manifests are no text to learn from.
    """
    top = folder.rstrip("/")
    names: dict[str, set[str]] = {}
    for file in files:
        where, _, name = file.rpartition("/")
        names.setdefault(where, set()).add(name)
    stores = sorted(where for where, found in names.items() if {MANIFEST, BIN, IDX} <= found)
    if top in stores:
        return top
    refuse_stores_in(folder, stores, flag)
    return None


def refuse_stores_in(folder: str, stores: Sequence[str], flag: str) -> None:
    """Raise :class:`UserError` where ``folder``, which is to be read as text, has token ``stores`` in it."""
    if stores:
        raise UserError(f"{folder} holds token stores; name one of them: {', '.join(stores[:3])}", flag=flag)
