"""A finished store to object storage: file by file, its manifest last, so that it appears whole."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lmtrain.core.console import Say, amount, silent
from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json
from lmtrain.data.remote.failures import is_no_bucket
from lmtrain.data.remote.places import Place, place_of
from lmtrain.data.remote.retrying import patiently
from lmtrain.data.store import BIN, DOCUMENTS, IDX, MANIFEST

_T = TypeVar("_T")
_FLAG = "--output_dir"
_PROBE = ".lmtrain-write-test"


def require_writable(address: str, token: str | None = None) -> None:
    """Try to write at an address, before hours of work for it. ``token`` is for the hub's.

    Raises :class:`UserError` where that fails, or something lies there that is no token store.
    """
    place = place_of(address, _FLAG, token=token)
    manifest = _manifest_at(place)
    foreign = sorted(_names_at(place) - {BIN, IDX, DOCUMENTS, _PROBE}) if manifest is None else []
    if foreign:  # without its manifest, a store is what a stopped upload left
        raise UserError(
            f"{place.name} holds something that is no token store ({foreign[0]}); name another place", flag=_FLAG
        )
    probe = place.inside(_PROBE)
    patiently(lambda: probe.files.pipe_file(probe.path, b"x"), address, _FLAG, patience=5)
    patiently(lambda: probe.files.rm_file(probe.path), address, _FLAG, patience=5)


def upload_store(
    folder: Path, address: str, *, token: str | None = None, overwrite: bool = False, say: Say = silent
) -> bool:
    """Copy the store in ``folder`` to an address, unless it lies there; returns whether anything was copied.

    ``token`` is for the hub's. Raises :class:`UserError` where the store of another text or tokenizer lies there and is
    not to be replaced.
    """
    place = place_of(address, _FLAG, token=token)
    mine = read_json(folder / MANIFEST)
    there = _manifest_at(place)
    if there is not None:
        if there.get("key") == mine["key"] and there.get("files") == mine["files"] and _is_whole(place, mine):
            say("store", f"lies there already · {place.name}")
            return False
        if there.get("key") != mine["key"] and not overwrite:
            raise UserError(
                f"{place.name} is the store of another text or tokenizer; name another place, or replace it with "
                "--overwrite_cache",
                flag=_FLAG,
            )
        # Nobody is to find the old manifest beside new files.
        old = place.inside(MANIFEST)
        patiently(lambda: old.files.rm_file(old.path), address, _FLAG)
    began = time.monotonic()
    for name in (BIN, IDX, DOCUMENTS, MANIFEST):
        _put(folder / name, place.inside(name))
    size, seconds = sum(about["bytes"] for about in mine["files"].values()), time.monotonic() - began
    say("store", f"{amount(size, 'B')} uploaded in {seconds:.1f} s · {place.name}")
    return True


def _put(file: Path, place: Place) -> None:
    size = file.stat().st_size
    if size:
        patiently(lambda: place.files.put_file(str(file), place.path), place.address, _FLAG)
    else:  # multipart uploads have no empty part
        patiently(lambda: place.files.pipe_file(place.path, b""), place.address, _FLAG)
    if (found := place.about().get("size")) != size:
        raise UserError(f"{place.name} has {found} bytes after {size} were uploaded; try again", flag=_FLAG)


def _is_whole(place: Place, manifest: dict[str, Any]) -> bool:
    try:
        return all(place.inside(n).about().get("size") == about["bytes"] for n, about in manifest["files"].items())
    except UserError:
        return False


def _manifest_at(place: Place) -> dict[str, Any] | None:
    written = place.inside(MANIFEST)

    def read() -> dict[str, Any] | None:
        try:
            found = json.loads(written.files.cat_file(written.path))
        except ValueError:
            return None
        return found if isinstance(found, dict) and "files" in found else None

    return _if_there(written, read, None)


def _names_at(place: Place) -> set[str]:
    def names() -> set[str]:
        return {path.rstrip("/").rpartition("/")[2] for path in place.files.ls(place.path, detail=False)}

    return _if_there(place, names, set())


def _if_there(place: Place, read: Callable[[], _T], nothing: _T) -> _T:
    """What ``read`` finds, or ``nothing`` where nothing lies there. Raises :class:`UserError` where there is no bucket
    for it either."""

    def found() -> _T:
        try:
            return read()
        except FileNotFoundError as error:
            if is_no_bucket(error):
                raise
            return nothing

    return patiently(found, place.address, _FLAG, patience=5)
