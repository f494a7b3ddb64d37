"""The store of a request: found, or made here, by workers, or of shards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lmtrain.core.children import cores
from lmtrain.core.console import Say, silent
from lmtrain.core.files import atomic_folder, sha256_json
from lmtrain.data.cache import locked, remember_elsewhere, store_folder
from lmtrain.data.ledger import Ledger
from lmtrain.data.preparing.encoding import Account, Work
from lmtrain.data.preparing.engine import Engine, require_room, sample_of
from lmtrain.data.preparing.filling import Crew, crew_for, fill
from lmtrain.data.preparing.finding import find, make_place, still_to_make
from lmtrain.data.preparing.manifest import finish, made_line, said_of
from lmtrain.data.preparing.merging import merge
from lmtrain.data.preparing.plan import Segment, segments_of
from lmtrain.data.preparing.request import Prepared, Request, flag_of
from lmtrain.data.sources.changes import Stamps
from lmtrain.data.sources.segments import file_of
from lmtrain.data.store import TokenStore, explaining_disks
from lmtrain.data.store_writer import StoreWriter
from lmtrain.data.tokenization import DiffersError
from lmtrain.data.validation_cut import Cut, find_cut


def prepare(
    request: Request, cache: Path, *, folder: Path | None = None, overwrite: bool = False, say: Say = silent
) -> Prepared:
    """The store of ``request``: found in ``cache`` (or at ``folder``), or made there.

    With ``folder`` the store is made there and not in the cache, which only notes where it is. Raises
    :class:`UserError`.
    """
    if request.making.merge:
        return merge(request, cache, folder=folder, overwrite=overwrite, say=say)
    stamps = Stamps(request.sources)
    hashes = _hashes(request)
    plain_key = request.key(hashes, 0.0)
    cut_key = request.key(hashes, request.cut_percentage)
    if not overwrite and (found := find(request, cache, folder, plain_key, cut_key, say)):
        return found
    cut = find_cut(request.sources, request.cut_percentage)
    # Of the store that is made, so others that would make it wait, and cleaning too.
    key = cut_key if cut else plain_key
    waiting = "another process is preparing this text; waiting for it"
    with locked(cache, sha256_json(str(folder.absolute())) if folder else key, waiting):
        target = folder or store_folder(cache, key)
        overwrite = still_to_make(overwrite, target)
        if not overwrite and (found := find(request, cache, folder, plain_key, cut_key, say)):
            return found  # the other process has made it
        with explaining_disks(target.parent, flag_of(folder)):
            make_place(target, folder, overwrite)
            made = _Making(request, stamps, hashes, key, target, cut, flag_of(folder)).make(say)
        if folder:
            remember_elsewhere(cache, key, folder)
        return made


def _hashes(request: Request) -> list[str]:
    """Of the sources, by as many threads as there are workers: parts of a large file, or several small ones at once."""
    with ThreadPoolExecutor(request.making.workers or cores()) as threads:
        for source in request.sources:
            if (file := file_of(source)) is not None and file.is_hashed_in_parts:
                file.content_hash(threads)
        return list(threads.map(lambda source: source.content_hash(), request.sources))


@dataclass(frozen=True)
class _Making:
    """One store to make of its sources. ``stamps``: of before they were hashed. ``flag``: what the user says to have it
    made at another place."""

    request: Request
    stamps: Stamps
    hashes: Sequence[str]
    key: str
    target: Path
    cut: Cut | None
    flag: str

    def make(self, say: Say) -> Prepared:
        began = time.perf_counter()
        request = self.request
        if request.tokenizer.fast:
            request.tokenizer.fast.start()
        segments = segments_of(request.sources, self.cut, request.making.segment_bytes)
        with crew_for(request, segments, self.key) as crew:
            sample = sample_of(request.sources, seed=self.key)
            engine = Engine.chosen(request.tokenizer, sample)
            require_room(request, engine.encoder, sample, self.target.parent, self.flag)
            try:
                ledger, account = self._write(segments, engine, crew)
            except DiffersError as error:  # a place that the first proof did not see
                engine = Engine.after(request.tokenizer, error)
                ledger, account = self._write(segments, engine, crew)
        lines = [engine.line, *said_of(account)]
        store = TokenStore.open(self.target)
        for text in lines:
            say("tokenizer", text)
        say("store", made_line(store, ledger, time.perf_counter() - began))
        return Prepared(store, ledger, False, tuple(lines))

    def _write(self, segments: Sequence[Segment], engine: Engine, crew: Crew | None) -> tuple[Ledger, Account]:
        request = self.request
        with atomic_folder(self.target) as scratch, StoreWriter(scratch, request.tokenizer.n_ids) as writer:
            work = Work.of(segments, request.sources, self.cut)
            account = fill(writer, request, work, engine, self.key, crew)
            self.stamps.require_unchanged()
            name, why = engine.encoder.name, [engine.claim]
            return finish(writer, request, self.hashes, self.key, self.cut, account, name, why), account
