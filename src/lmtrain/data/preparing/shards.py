"""Shards: parts of a store made by hand or by the tasks of an array job, and merged when all are there.

::

    <cache>/stores/.<key>.shards/00001-of-00004/     or, with --output_dir OUT, in OUT.shards/
      part.json                                      what it was made of and with, SHA-256 of its tokens
      tokens.bin, documents.bin, lengths.tmp         see parts

Merging (:mod:`~lmtrain.data.preparing.merging`) is a command of its own. The last of the tasks cannot know that it is
the last without a lock that all machines respect, and many shared file systems have none; a job that waits for the
others is what every scheduler has.

A shard hashes the sources that it reads, whole, while it encodes: where two shards read the same source, their hashes
have to agree, and together they give the key of the store without another pass over the text.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmtrain.core.addresses import is_address
from lmtrain.core.console import Say, silent
from lmtrain.core.errors import UserError
from lmtrain.core.files import atomic_folder, read_record, sha256_file, sha256_json, write_json
from lmtrain.core.types import Source
from lmtrain.data.cache import locked, shards_folder
from lmtrain.data.preparing.encoding import Work
from lmtrain.data.preparing.engine import Engine, require_room, sample_of
from lmtrain.data.preparing.filling import PARTS, Crew, crew_for, fill
from lmtrain.data.preparing.parts import PartRecord
from lmtrain.data.preparing.plan import ranges_of, segments_of
from lmtrain.data.preparing.request import Request, flag_of
from lmtrain.data.sources.changes import Stamps
from lmtrain.data.sources.segments import file_of, size_of
from lmtrain.data.store import BIN, DOCUMENTS, FORMAT, explaining_disks
from lmtrain.data.store import RECORD as DOCUMENT
from lmtrain.data.store_writer import LENGTHS, DocumentWriter
from lmtrain.data.tokenization import DiffersError
from lmtrain.data.validation_cut import Cut, find_cut

RECORD = "part.json"
DIFFERS = "engines-differ.json"  # says where they do: the shards made after that are made with the plain engine
_CONTENDED = 2.0  # seconds for which other shards that begin may hold a lock
_WORDS = {
    "text": "another text",
    "reading": "other settings of how the text is read",
    "tokenizer": "another tokenizer",
    "cut": "another --validation_split_percentage",
    "format": "another version of lmtrain",
}


@dataclass(frozen=True)
class Shard:
    """Shard ``number`` of ``count`` on disk. ``about``: what it was made of; ``hashes``: of its sources, by their
    numbers."""

    folder: Path
    number: int
    count: int
    about: dict[str, Any]
    hashes: dict[int, str]
    sha256: str
    record: PartRecord

    @classmethod
    def read(cls, folder: Path) -> Shard | None:
        """None where there is none, none that can be read, or another one that was copied there; of its bytes only the
        number is looked at."""
        value = read_record(folder / RECORD)
        try:
            hashes, part = {int(k): v for k, v in value["hashes"].items()}, PartRecord.from_json(value["part"])
            shard = cls(folder, value["number"], value["count"], value["about"], hashes, value["sha256"], part)
            is_itself = folder.name == name_of(shard.number, shard.count)
            return shard if is_itself and shard._is_whole() else None
        except (KeyError, TypeError, ValueError, AttributeError, OSError):
            return None

    def _is_whole(self) -> bool:
        tokens, lengths, documents = ((self.folder / name).stat().st_size for name in (BIN, LENGTHS, DOCUMENTS))
        count = self.record.documents
        sizes_of_ids = 2 * self.record.tokens, 4 * self.record.tokens  # by the size of the vocabulary
        return (lengths, documents) == (4 * count, DOCUMENT.itemsize * count) and tokens in sizes_of_ids

    def write(self) -> None:
        names = ("number", "count", "about", "hashes", "sha256")
        value = {name: getattr(self, name) for name in names}
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
    place, stamps = place_of(request, cache, folder), Stamps(request.sources)
    target = place / name_of(number, count)
    cut = find_cut(request.sources, request.cut_percentage)
    about = about_of(request, cut)
    segments = segments_of(request.sources, cut, request.making.segment_bytes)
    part = ranges_of(segments, count)[number]
    work = Work.of(segments[part.start : part.stop], request.sources, cut)
    with (
        locked(cache, lock_of(place), "another process is making this shard; waiting for it", part=number),
        _hashing(work) as hashes,
    ):
        with locked(cache, lock_of(place), "the shards are being merged; waiting for that", patience=_CONTENDED):
            pass  # who merges holds it, and begins where no shard is under way
        differ = read_record(place / DIFFERS).get("differ")
        if (there := Shard.read(target)) and not overwrite:
            wrong = differences(there.about, about)
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
        with explaining_disks(place, flag_of(folder)):
            place.mkdir(parents=True, exist_ok=True)
            with crew_for(request, work.segments, target.name) as crew, atomic_folder(target) as scratch:
                sample = sample_of(request.sources, seed=place.name)
                engine = _engine(request, sample, differ)
                require_room(request, engine.encoder, sample, place, flag_of(folder), 1 / count)
                try:
                    record = _write(scratch, request, work, engine, crew)
                except DiffersError as error:
                    write_json(place / DIFFERS, {"differ": str(error)})
                    engine = Engine.after(request.tokenizer, error)
                    record = _write(scratch, request, work, engine, crew)
                for left in scratch.glob(f"{PARTS}*"):  # of the first attempt
                    shutil.rmtree(left, ignore_errors=True)
                made = {source: found.result() for source, found in hashes.items()}
                stamps.require_unchanged()
                shard = Shard(scratch, number, count, about, made, sha256_file(scratch / BIN), record)
                shard.write()
        say("tokenizer", engine.line)
        seconds = time.perf_counter() - began
        say("shard", f"{number} of {count}: {record.tokens:,} tokens in {seconds:.1f} s · {target}")
        return replace(shard, folder=target), False


def _engine(request: Request, sample: Sequence[str], differ: str | None) -> Engine:
    """The plain one where another shard has found that the fast one's ids ``differ``."""
    if differ:
        return Engine.after(request.tokenizer, DiffersError.saying(differ))
    return Engine.chosen(request.tokenizer, sample)


@contextmanager
def _hashing(work: Work) -> Iterator[dict[int, Future[str]]]:
    """The hashes of the sources of ``work``, found beside whatever else is done, and given up when that fails."""
    executor = ThreadPoolExecutor(1)
    try:
        yield {number: executor.submit(source.content_hash) for number, source in work.sources.items()}
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _write(folder: Path, request: Request, work: Work, engine: Engine, crew: Crew | None) -> PartRecord:
    with DocumentWriter(folder, request.tokenizer.n_ids, continues=True) as writer:
        account = fill(writer, request, work, engine, folder.name, crew)
        return PartRecord.of(writer, account, engine)


def place_of(request: Request, cache: Path, folder: Path | None) -> Path:
    """Where the shards of a request lie. The text is known there by where it is, as nobody has read all of it yet."""
    if folder:
        return folder.with_name(f"{folder.name}.shards")
    paths = [_whereabouts(source) for source in request.sources]
    return shards_folder(
        cache,
        sha256_json([FORMAT, paths, dict(request.reading), request.tokenizer.fingerprint, request.cut_percentage]),
    )


def _whereabouts(source: Source) -> str:
    """Where the text of a source lies, from whatever folder the command is given."""
    file = file_of(source)
    if file is None:
        return source.name
    return file.path if is_address(file.path) else os.path.abspath(file.path)  # noqa: PTH100


def lock_of(place: Path) -> str:
    """The key in the name of a folder of the cache, so that cleaning sees what is under way; else one of its own."""
    return place.name[1:].removesuffix(".shards") if place.name[0] == "." else sha256_json(str(place.absolute()))


def name_of(number: int, count: int) -> str:
    return f"{number:05d}-of-{count:05d}"


def about_of(request: Request, cut: Cut | None) -> dict[str, Any]:
    """What all shards of a store have in common."""
    return {
        "format": [FORMAT, request.making.segment_bytes],
        "text": sha256_json([request.kinds(), [size_of(source) for source in request.sources]]),
        "reading": dict(request.reading),
        "tokenizer": request.tokenizer.fingerprint,
        "cut": cut.as_json() if cut else None,
    }


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    names = [name for name in ("text", "reading", "tokenizer", "cut", "format") if found.get(name) != wanted[name]]
    if "text" in names and "cut" in names:
        names.remove("cut")  # it follows from the text
    return [_WORDS[name] for name in names]
