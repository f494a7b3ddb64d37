"""Shards: parts of a store made by hand or by the tasks of an array job, and merged when all are there.

::

    <cache>/stores/.<key>.shards/00001-of-00004/     or, with --output_dir OUT, in OUT.shards/
      part.json                                      what it was made of and with, SHA-256 of its tokens
      tokens.bin, documents.bin, lengths.tmp         see parts

Merging is a command of its own. The last of the tasks cannot know that it is the last without a lock that all machines
respect, and many shared file systems have none; a job that waits for the others is what every scheduler has.

A shard hashes the sources that it reads, whole, while it encodes: where two shards read the same source, their hashes
have to agree, and together they give the key of the store without another pass over the text.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmtrain.core.console import Say, counted, silent
from lmtrain.core.errors import Problems, UserError
from lmtrain.core.files import atomic_folder, read_record, sha256_file, sha256_json, write_json
from lmtrain.data.cache import locked, remember_elsewhere, shards_folder, store_folder
from lmtrain.data.cutting import Cut, find_cut
from lmtrain.data.preparing.engine import Engine, require_room, sample_of
from lmtrain.data.preparing.filling import Crew, append_parts, crew_for, fill
from lmtrain.data.preparing.finding import find, require_free
from lmtrain.data.preparing.making import cannot_write, made_line
from lmtrain.data.preparing.manifest import finish, said_of
from lmtrain.data.preparing.parts import PartRecord
from lmtrain.data.preparing.plan import Segment, ranges_of, segments_of
from lmtrain.data.preparing.request import Prepared, Request
from lmtrain.data.sources.segments import file_of, size_of
from lmtrain.data.store import BIN, FORMAT, TokenStore, explaining_full_disks
from lmtrain.data.store_writer import DocumentWriter, StoreWriter
from lmtrain.data.tokenization import DiffersError

RECORD = "part.json"
_DIFFERS = "engines-differ.json"  # says where they do: the shards made after that are made with the plain engine
_WORDS = {
    "text": "another text",
    "reading": "other settings of how the text is read",
    "tokenizer": "another tokenizer",
    "cut": "another --validation_split_percentage",
    "format": "another version of lmtrain",
}


@dataclass(frozen=True)
class Shard:
    """A shard on disk. ``about``: what it was made of; ``hashes``: of its sources, by their numbers."""

    folder: Path
    number: int
    about: dict[str, Any]
    hashes: dict[int, str]
    sha256: str
    record: PartRecord

    @classmethod
    def read(cls, folder: Path) -> Shard | None:
        """None where there is none, or none that can be read."""
        value = read_record(folder / RECORD)
        try:
            shard = cls(folder, value["number"], value["about"], {int(k): v for k, v in value["hashes"].items()},
                        value["sha256"], PartRecord.from_json(value["part"]))  # fmt: skip
            return shard if (folder / BIN).is_file() else None
        except (KeyError, TypeError, ValueError):
            return None

    def write(self) -> None:
        value = {"number": self.number, "about": self.about, "hashes": self.hashes, "sha256": self.sha256}
        write_json(self.folder / RECORD, value | {"part": self.record.as_json()})


def make_shard(
    request: Request,
    cache: Path,
    number: int,
    count: int,
    *,
    folder: Path | None = None,
    overwrite: bool = False,
    say: Say = silent,
) -> tuple[Shard, bool]:
    """Shard ``number`` of ``count``, from 0, and whether it was there. Raises :class:`UserError`."""
    place = place_of(request, cache, folder)
    target = place / _name(number, count)
    cut = find_cut(request.sources, request.cut_percentage)
    about = _about(request, cut)
    segments = segments_of(request.sources, cut, request.making.segment_bytes)
    part = ranges_of(segments, count)[number]
    chosen = segments[part.start : part.stop]
    with (
        locked(cache, _lock(place), "another process is making this shard; waiting for it", part=number),
        ThreadPoolExecutor(1) as hashing,
    ):
        read = dict.fromkeys(segment.source for segment in chosen)
        hashes = {source: hashing.submit(request.sources[source].content_hash) for source in read}
        differ = read_record(place / _DIFFERS).get("differ")
        if (there := Shard.read(target)) and not overwrite:
            wrong = _differences(there.about, about)
            if not wrong and there.hashes != {source: found.result() for source, found in hashes.items()}:
                wrong = [_WORDS["text"]]
            if not wrong and not (differ and there.record.engine == "fastokens"):
                return there, True
            if wrong and folder:
                raise UserError(
                    f"{target} was made with {' and '.join(wrong)}; name another folder, or replace it with "
                    "--overwrite_cache",
                    flag="--output_dir",
                )
        began = time.perf_counter()
        try:
            place.mkdir(parents=True, exist_ok=True)
            with (
                crew_for(request, chosen, target.name) as crew,
                explaining_full_disks(place),
                atomic_folder(target) as scratch,
            ):
                sample = sample_of(request.sources, seed=place.name)
                engine = Engine.chosen(request.tokenizer, sample)
                if differ:
                    engine = Engine.after(request.tokenizer, DiffersError.saying(differ))
                require_room(request, engine.encoder, sample, place, 1 / count)
                try:
                    record = _write(scratch, request, chosen, cut, engine, crew)
                except DiffersError as error:
                    write_json(place / _DIFFERS, {"differ": str(error)})
                    shutil.rmtree(scratch / "parts", ignore_errors=True)
                    engine = Engine.after(request.tokenizer, error)
                    record = _write(scratch, request, chosen, cut, engine, crew)
                made = {source: found.result() for source, found in hashes.items()}
                Shard(scratch, number, about, made, sha256_file(scratch / BIN), record).write()
        except PermissionError as error:
            raise cannot_write(target, folder, error) from error
        say("tokenizer", engine.line)
        seconds = time.perf_counter() - began
        say("shard", f"{number} of {count}: {record.tokens:,} tokens in {seconds:.1f} s · {target}")
        shard = Shard.read(target)
        assert shard is not None
        return shard, False


def _write(
    folder: Path, request: Request, segments: Sequence[Segment], cut: Cut | None, engine: Engine, crew: Crew | None
) -> PartRecord:
    with DocumentWriter(folder, request.tokenizer.n_ids, continues=True) as writer:
        account = fill(writer, request, segments, cut, engine, folder.name, crew)
        return PartRecord.of(writer, account, engine)


def merge(
    request: Request, cache: Path, *, folder: Path | None = None, overwrite: bool = False, say: Say = silent
) -> Prepared:
    """The store of the shards that were made of ``request``, which are removed; also one that was merged before."""
    count = request.making.merge
    assert count is not None
    place = place_of(request, cache, folder)
    if not place.is_dir():
        hashes = [source.content_hash() for source in request.sources]
        keys = request.key(hashes, 0.0), request.key(hashes, request.cut_percentage)
        if found := find(request, cache, folder, *keys, say):
            return found
    cut = find_cut(request.sources, request.cut_percentage)
    shards = _all_right(place, count, _about(request, cut))
    hashes = _hashes(shards, request)
    key = request.key(hashes, request.cut_percentage if cut else 0.0)
    target = folder or store_folder(cache, key)
    with locked(cache, sha256_json(str(folder.absolute())) if folder else key, "another process is making this store"):
        began = time.perf_counter()
        if folder:
            require_free(folder, overwrite)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                explaining_full_disks(target.parent),
                atomic_folder(target) as scratch,
                StoreWriter(scratch, request.tokenizer.n_ids) as writer,
            ):
                account = append_parts(writer, ((shard.folder, shard.record, shard.sha256) for shard in shards))
                name, why = _engine(shards)
                ledger = finish(writer, request, hashes, key, cut, account, name, why)
        except PermissionError as error:
            raise cannot_write(target, folder, error) from error
        if folder:
            remember_elsewhere(cache, key, folder)
        shutil.rmtree(place, ignore_errors=True)
    store = TokenStore.open(target)
    lines = [*why, *said_of(account)]
    for line in lines:
        say("tokenizer", line)
    say("store", f"of {counted(count, 'shard')}: {made_line(store, ledger, time.perf_counter() - began)}")
    return Prepared(store, ledger, False, tuple(lines))


def place_of(request: Request, cache: Path, folder: Path | None) -> Path:
    """Where the shards of a request lie. The text is known there by where it is, as nobody has read all of it yet."""
    if folder:
        return folder.with_name(f"{folder.name}.shards")
    paths = [os.path.abspath(file.path) if (file := file_of(s)) else s.name for s in request.sources]  # noqa: PTH100
    return shards_folder(
        cache,
        sha256_json([FORMAT, paths, dict(request.reading), request.tokenizer.fingerprint, request.cut_percentage]),
    )


def _lock(place: Path) -> str:
    """The key in the name of a folder of the cache, so that cleaning sees what is under way; else one of its own."""
    return place.name[1:].removesuffix(".shards") if place.name[0] == "." else sha256_json(str(place.absolute()))


def _name(number: int, count: int) -> str:
    return f"{number:05d}-of-{count:05d}"


def _about(request: Request, cut: Cut | None) -> dict[str, Any]:
    """What all shards of a store have in common."""
    return {
        "format": [FORMAT, request.making.segment_bytes],
        "text": sha256_json([request.kinds(), [size_of(source) for source in request.sources]]),
        "reading": dict(request.reading),
        "tokenizer": request.tokenizer.fingerprint,
        "cut": cut.as_json() if cut else None,
    }


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    names = [name for name in ("text", "reading", "tokenizer", "cut", "format") if found.get(name) != wanted[name]]
    if "text" in names and "cut" in names:
        names.remove("cut")  # it follows from the text
    return [_WORDS[name] for name in names]


def _all_right(place: Path, count: int, about: dict[str, Any]) -> list[Shard]:
    """The shards in order; raises :class:`UserError` that names those that are missing or wrong."""
    shards = [Shard.read(place / _name(number, count)) for number in range(count)]
    problems = Problems()
    if missing := [number for number, shard in enumerate(shards) if shard is None]:
        others = sorted({int(path.name.rpartition("-")[2]) for path in place.glob("*-of-*")} - {count})
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
        if shard is not None and (words := _differences(shard.about, about)):
            wrong.append(
                f"shard {shard.number} was made with {' and '.join(words)}; make it again: "
                f"--shard {shard.number}/{count} --overwrite_cache"
            )
    problems.add_some(wrong, "shard", flag="--merge")
    problems.raise_if_any()
    found = [shard for shard in shards if shard is not None]
    if (place / _DIFFERS).exists() and (fast := [s.number for s in found if s.record.engine == "fastokens"]):
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
