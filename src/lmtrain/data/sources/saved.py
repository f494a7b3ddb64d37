"""Data sets saved by ``datasets.save_to_disk``: folders of Arrow files, read without ``datasets``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json, sha256_json
from lmtrain.core.types import Piece, Source, Tally
from lmtrain.data.sources.formats import source_for
from lmtrain.data.sources.opening import open_file
from lmtrain.data.sources.reading import Reading

_ONE, _SEVERAL = "state.json", "dataset_dict.json"


@dataclass(slots=True)
class Shards:
    """Several sources as one: the shards of a split."""

    name: str
    parts: list[Source]

    def content_hash(self) -> str:
        return sha256_json([part.content_hash() for part in self.parts])

    def pieces(self, tally: Tally) -> Iterator[Piece]:
        for part in self.parts:
            yield from part.pieces(tally)


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote this folder."""
    return (folder / _SEVERAL).is_file() or ((folder / _ONE).is_file() and (folder / "dataset_info.json").is_file())


def saved_splits(folder: Path, name: str, reading: Reading, flag: str) -> dict[str, Source]:
    """The splits of a saved data set; one saved without splits is called ``train``."""
    if (folder / _SEVERAL).is_file():
        with _complete(folder / _SEVERAL, flag) as state:
            splits = {str(split): folder / split for split in state["splits"]}
        return {split: _split(place, f"{name}/{split}", reading, flag) for split, place in splits.items()}
    return {"train": _split(folder, name, reading, flag)}


def _split(folder: Path, name: str, reading: Reading, flag: str) -> Source:
    with _complete(folder / _ONE, flag) as state:
        paths = [folder / entry["filename"] for entry in state["_data_files"]]
    return arrow_files(paths, name, reading, flag)


def arrow_files(paths: Sequence[str | Path], name: str, reading: Reading, flag: str) -> Source:
    """The Arrow files of a data set, called ``name``, as one source."""
    parts: list[Source] = []
    for path in map(Path, paths):
        source = source_for(*open_file(str(path), f"{name}/{path.name}", flag), reading, form="arrow")
        if not isinstance(source, str):
            parts.append(source)
    if not parts:
        raise UserError(f"{name} holds no records; nothing to read", flag=flag)
    return parts[0] if len(parts) == 1 else Shards(name, parts)


@contextmanager
def _complete(path: Path, flag: str) -> Iterator[Any]:
    """What a file says of a data set; and the error where that is not what such a file says."""
    try:
        yield read_json(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: the saved data set is incomplete; save it again (save_to_disk)", flag=flag) from error
