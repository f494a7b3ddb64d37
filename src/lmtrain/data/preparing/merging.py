"""The shards of a store put together, when all are there."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmtrain.core.console import Say, counted, silent
from lmtrain.core.errors import Problems, UserError
from lmtrain.core.files import atomic_folder, sha256_json
from lmtrain.data.cache import locked, parts_under_way, remember_elsewhere, store_folder
from lmtrain.data.preparing.filling import append_parts
from lmtrain.data.preparing.finding import find, make_place
from lmtrain.data.preparing.manifest import finish, made_line, said_of
from lmtrain.data.preparing.request import Prepared, Request, flag_of
from lmtrain.data.preparing.shards import DIFFERS, Shard, about_of, differences, lock_of, name_of, place_of
from lmtrain.data.store import TokenStore, explaining_disks, require_space, token_dtype
from lmtrain.data.store_writer import StoreWriter
from lmtrain.data.validation_cut import Cut, find_cut


def merge(
    request: Request, cache: Path, *, folder: Path | None = None, overwrite: bool = False, say: Say = silent
) -> Prepared:
    """The store of the shards that were made of ``request``, which are removed; also one that was merged before."""
    count = request.making.merge
    assert count is not None
    place = place_of(request, cache, folder)
    with locked(cache, lock_of(place), "another process is merging these shards; waiting for it"):
        if not place.is_dir():  # it goes in one move, so what is missing in it was never made
            hashes = [source.content_hash() for source in request.sources]
            keys = request.key(hashes, 0.0), request.key(hashes, request.cut_percentage)
            if found := find(request, cache, folder, *keys, say):
                return found
        _require_none_under_way(cache, place)
        cut = find_cut(request.sources, request.cut_percentage)
        shards = _all_right(place, count, about_of(request, cut))
        hashes = _hashes(shards, request)
        key = request.key(hashes, request.cut_percentage if cut else 0.0)
        lock = sha256_json(str(folder.absolute())) if folder else key
        with locked(cache, lock, "another process is making this store"):
            made = None if overwrite else find(request, cache, folder, key, key, say)
            if made is None:
                target = folder or store_folder(cache, key)
                with explaining_disks(target.parent, flag_of(folder)):
                    make_place(target, folder, overwrite)
                    size = sum(shard.record.tokens for shard in shards) * token_dtype(request.tokenizer.n_ids).itemsize
                    require_space(target.parent, size, "the token store", flag_of(folder))
                    made = _merged(request, shards, hashes, key, cut, target, say)
            if folder:
                remember_elsewhere(cache, key, folder)
            _remove(place)
    return made


def _require_none_under_way(cache: Path, place: Path) -> None:
    """What is made now would take the place of what is being read, and be removed with it."""
    if numbers := parts_under_way(cache, lock_of(place)):
        named = ", ".join(map(str, numbers[:20])) + (", …" if len(numbers) > 20 else "")
        verb = "is" if len(numbers) == 1 else "are"
        raise UserError(
            f"{counted(len(numbers), 'shard')} in {place} {verb} being made: {named}; merge when that has ended",
            flag="--merge",
        )


def _merged(
    request: Request, shards: Sequence[Shard], hashes: Sequence[str], key: str, cut: Cut | None, target: Path, say: Say
) -> Prepared:
    began = time.perf_counter()
    with atomic_folder(target) as scratch, StoreWriter(scratch, request.tokenizer.n_ids) as writer:
        account = append_parts(writer, ((shard.folder, shard.record, shard.sha256) for shard in shards))
        name, why = _engine(shards)
        ledger = finish(writer, request, hashes, key, cut, account, name, why)
    store = TokenStore.open(target)
    lines = [*why, *said_of(account)]
    for line in lines:
        say("tokenizer", line)
    say("store", f"of {counted(len(shards), 'shard')}: {made_line(store, ledger, time.perf_counter() - began)}")
    return Prepared(store, ledger, False, tuple(lines))


def _remove(place: Path) -> None:
    """All shards at once: a process that is killed meanwhile leaves them whole, or a folder that nobody reads."""
    gone = place.with_name(f".{place.name.strip('.').removesuffix('.shards')}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        place.rename(gone)
    except OSError:
        gone = place  # a file in it is open, on Windows
    shutil.rmtree(gone, ignore_errors=True)


def _all_right(place: Path, count: int, about: dict[str, Any]) -> list[Shard]:
    """The shards in order; raises :class:`UserError` that names those that are missing or wrong."""
    shards = [Shard.read(place / name_of(number, count)) for number in range(count)]
    problems = Problems()
    if missing := [number for number, shard in enumerate(shards) if shard is None]:
        names = place.glob("[0-9]*-of-*")  # not those of folders that a shard is made in, or was: these are hidden
        numbers = (path.name.rpartition("-")[2] for path in names)
        others = sorted({int(number) for number in numbers if number.isdigit()} - {count})
        there = f" (there are some of {', '.join(map(str, others))})" if others else ""
        named = ", ".join(map(str, missing[:20])) + (", …" if len(missing) > 20 else "")
        gone = f"{counted(len(missing), 'shard')} of {count} {'is' if len(missing) == 1 else 'are'} missing"
        problems.add(
            f"{gone} in {place}{there}: {named}; make each with the same command, "
            f"--shard {missing[0]}/{count} in place of --merge {count}",
            flag="--merge",
        )
    wrong: list[str] = []
    for shard in shards:
        if shard is not None and (words := differences(shard.about, about)):
            wrong.append(
                f"shard {shard.number} was made with {' and '.join(words)}; make it again: "
                f"--shard {shard.number}/{count} --overwrite_cache"
            )
    problems.add_some(wrong, "shard", flag="--merge")
    problems.raise_if_any()
    found = [shard for shard in shards if shard is not None]
    if (place / DIFFERS).exists() and (fast := [s.number for s in found if s.record.engine == "fastokens"]):
        raise UserError(
            f"a shard found that fastokens differs from the plain engine on this text, and others were made with it: "
            f"{', '.join(map(str, fast))}; run their commands again (--shard {fast[0]}/{count})",
            flag="--merge",
        )
    return found


def _hashes(shards: Sequence[Shard], request: Request) -> list[str]:
    """Of all sources, as the shards that read them found them."""
    by: dict[int, Shard] = {}
    for shard in shards:
        for source, sha in shard.hashes.items():
            first = by.setdefault(source, shard)
            if first.hashes[source] != sha:
                raise UserError(
                    f"shards {first.number} and {shard.number} were made of different contents of "
                    f"{request.sources[source].name}, which changed meanwhile; make both again with --overwrite_cache",
                    flag="--merge",
                )
    return [by[source].hashes[source] for source in range(len(request.sources))]


def _engine(shards: Sequence[Shard]) -> tuple[str, list[str]]:
    """The encoder, and why it was chosen; the fast one where any shard was made with it."""
    records = [shard.record for shard in shards]
    chosen = next((record for record in records if record.engine == "fastokens"), records[0])
    return chosen.engine, [chosen.claim]
