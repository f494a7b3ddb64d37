"""A finished store of a request: in the cache, in a folder of its own, or made for another percentage."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from lmtrain.core.console import Say
from lmtrain.core.errors import UserError
from lmtrain.core.launching import processes
from lmtrain.data.cache import clear_abandoned, elsewhere, store_folder
from lmtrain.data.ledger import Ledger
from lmtrain.data.preparing.request import Prepared, Request
from lmtrain.data.splits import first_count
from lmtrain.data.store import MANIFEST, REMEDY, DamagedStoreError, TokenStore

_BEGAN = time.time()  # of this process, before it meets the others of its run
MADE_AGAIN = "the same command makes it again; what was trained or scored so far may have read the damaged text"


def find(request: Request, cache: Path, folder: Path | None, plain_key: str, cut_key: str, say: Say) -> Prepared | None:
    """A finished store of this request, or None. Its bytes are compared, those of large files beside the work."""
    for key in dict.fromkeys((cut_key, plain_key)):
        place = folder or store_folder(cache, key)
        if not folder and not (place / MANIFEST).exists():
            place = elsewhere(cache, key) or place
        if not (place / MANIFEST).exists():
            continue
        try:
            store = TokenStore.open(place)
            if store.manifest.get("key") != key:
                continue
            if key == plain_key != cut_key:  # made for another percentage: is it right for this one?
                count = first_count(request.cut_percentage, len(store))
                if not 0 < count < len(store):
                    continue
            store.watch(cache, REMEDY if folder else MADE_AGAIN)
        except DamagedStoreError as error:
            if folder:
                raise
            say("store", f"{error.found}; making it again")
            continue
        return Prepared(store, Ledger.of_store(store.manifest), True)
    return None


def still_to_make(overwrite: bool, folder: Path) -> bool:
    """Whether ``overwrite`` asks to make the store in ``folder`` anew, for who has its lock.

    Of the processes that a launcher started the first one makes it, and the others, which get the lock after it, take
    that: each would tokenize all of the text again, and remove what those before it read.
    """
    manifest = folder / MANIFEST
    if not (overwrite and processes() > 1 and manifest.exists()):
        return overwrite
    began = _now_by(folder.parent) - (time.time() - _BEGAN)
    return manifest.stat().st_mtime <= began


def _now_by(folder: Path) -> float:
    """The time by the clock of whoever keeps the folder: on a disk of the network that is another machine's."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


def make_place(target: Path, folder: Path | None, overwrite: bool) -> None:
    """Make the place where a store is to be, for who has its lock: ``target`` is ``folder`` or a place in the cache."""
    if folder:
        _require_free(folder, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_abandoned(target)


def _require_free(folder: Path, overwrite: bool) -> None:
    """Never write over what is not ours to replace."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MANIFEST).exists():
        raise UserError(f"{folder} holds something that is no token store; name another folder", flag="--output_dir")
    if not overwrite:
        raise UserError(
            f"{folder} is the store of another text or tokenizer; name another folder, or replace it with "
            "--overwrite_cache",
            flag="--output_dir",
        )
