"""Segments of text to tokens: read, cut at proven seams, encoded in batches, written."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from lmtrain.core.types import Piece, Source, Tally
from lmtrain.data.preparing.engine import Engine
from lmtrain.data.preparing.plan import Segment, read
from lmtrain.data.seams import Seams
from lmtrain.data.store_writer import DocumentWriter
from lmtrain.data.tokenization import Encoded, Encoder
from lmtrain.data.validation_cut import Cut

_BATCH = 2 << 20  # characters encoded at once: enough for all cores, little enough to be no memory
_CHECKED = 2048  # characters of each batch that the plain engine encodes too


@dataclass
class Account:
    """What was read, by the numbers of the sources: documents and UTF-8 bytes; cuts of documents that did not hold."""

    tally: Tally = field(default_factory=Tally)
    documents: dict[int, int] = field(default_factory=dict)
    bytes: dict[int, int] = field(default_factory=dict)
    joined: int = 0

    def count(self, source: int, piece: Piece) -> None:
        self.documents[source] = self.documents.get(source, 0) + piece.first
        self.bytes[source] = self.bytes.get(source, 0) + piece.n_bytes

    def __iadd__(self, other: Account) -> Account:
        """With what was read after it."""
        mine, more = self.tally, other.tally
        mine.files += more.files
        mine.bytes_read += more.bytes_read
        mine.documents += more.documents
        mine.skipped.update(more.skipped)
        mine.notes += [note for note in more.notes if note not in mine.notes]
        for own, added in ((self.documents, other.documents), (self.bytes, other.bytes)):
            for source, count in added.items():
                own[source] = own.get(source, 0) + count
        self.joined += other.joined
        return self


@dataclass(frozen=True)
class Work:
    """Segments to encode: the sources that they are of by number, the place where the text is cut in two, if any."""

    segments: Sequence[Segment]
    sources: Mapping[int, Source]
    cut: Cut | None

    @classmethod
    def of(cls, segments: Sequence[Segment], sources: Sequence[Source], cut: Cut | None) -> Work:
        """With no more of the sources than it needs."""
        numbers = dict.fromkeys(segment.source for segment in segments)
        return cls(segments, {number: sources[number] for number in numbers}, cut)


@dataclass
class _Batch:
    """Pieces on their way to the encoder; the lists have one entry a piece (see DocumentWriter.append)."""

    texts: list[str] = field(default_factory=list)
    first: list[bool] = field(default_factory=list)
    n_bytes: list[int] = field(default_factory=list)
    crc32: list[int] = field(default_factory=list)
    size: int = 0


def encode(work: Work, engine: Engine, writer: DocumentWriter, seed: str, *, beside: bool = False) -> Account:
    """Write the tokens of ``work``. ``beside``: read in this thread while another one encodes.

    Raises :class:`DiffersError` when the engine differs from the plain one on a place of a batch.
    """
    account, seams = Account(), Seams(engine.encoder)
    under_way: tuple[Future[Encoded], _Batch] | None = None
    with ExitStack() as stack:
        worker: Executor = stack.enter_context(ThreadPoolExecutor(1)) if beside else _Here()
        encode_batch = _checked(engine, f"{seed}/{work.segments[0].source if work.segments else 0}")
        for batch in _batches(_pieces(work, seams, account)):
            future = worker.submit(encode_batch, batch.texts)
            if under_way:
                _append(writer, *under_way)
            under_way = (future, batch)
        if under_way:
            _append(writer, *under_way)
    account.joined = seams.joined
    return account


class _Here(Executor):
    """Does at once what is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def _pieces(work: Work, seams: Seams, account: Account) -> Iterator[Piece]:
    for segment in work.segments:
        yield from seams.proven(_counted(segment, work, seams, account))


def _counted(segment: Segment, work: Work, seams: Seams, account: Account) -> Iterator[Piece]:
    for piece in read(segment, work.sources, work.cut, seams, account.tally):
        account.count(segment.source, piece)
        yield piece


def _batches(pieces: Iterable[Piece]) -> Iterator[_Batch]:
    batch, crc = _Batch(), 0
    for piece in pieces:
        text, utf8 = piece.text, piece.utf8
        crc = zlib.crc32(text.encode("utf-8") if utf8 is None else utf8, 0 if piece.first else crc)
        batch.texts.append(text)
        batch.first.append(piece.first)
        batch.n_bytes.append(piece.n_bytes)
        batch.crc32.append(crc)
        batch.size += len(text) + 16
        if batch.size >= _BATCH:
            yield batch
            batch = _Batch()
    if batch.texts:
        yield batch


def _append(writer: DocumentWriter, future: Future[Encoded], batch: _Batch) -> None:
    ids, offsets = future.result()
    writer.append(ids, offsets, batch.first, batch.n_bytes, batch.crc32)


def _checked(engine: Engine, seed: str) -> Callable[[list[str]], Encoded]:
    """Encode a batch; with a proof also compare a random place of it."""
    draw = random.Random(f"{seed}/batches")
    encoder: Encoder = engine.encoder

    def encode(texts: list[str]) -> Encoded:
        if engine.proof:
            text = texts[draw.randrange(len(texts))]
            start = draw.randrange(max(1, len(text) - _CHECKED))
            engine.proof.check([text[start : start + _CHECKED]])
        return encoder.encode(texts)

    return encode
