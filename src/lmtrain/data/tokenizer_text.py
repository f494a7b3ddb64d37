"""What a tokenizer learns from: the sources as a stream of chunks, a part of them kept back to measure on."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence

from lmtrain.core.console import amount
from lmtrain.core.types import Source, Tally
from lmtrain.data.sources.segments import size_of
from lmtrain.data.sources.text import passed_over_by

_HELD_OUT_ONE_IN = 20
_HELD_OUT_BYTES = 2 << 20
_CHUNK = 1 << 16  # characters given to the trainer at once
_LEAST_CHUNK = 1 << 10
_PLACES = 64  # from how many places of the text a sample comes, at least
_LARGE = 4 << 30  # bytes on disk from which on a sample is advised, and of how many of text
_SAMPLE = 1_000_000_000
_FILE_SHARE = 8  # where there are many files, none gives more than this part of a sample


class TrainingText:
    """The sources as chunks for a trainer; one in twenty, chosen by content, is kept back to measure on (never the
    first: a short text is one chunk).

    With ``sample_bytes`` about so many bytes are taken, spread over the whole text: of fewer than 64 sources evenly
    from all of them (which reads them twice, the first time to see how much there is); of more, whole ones in an order
    given by their names' hashes, until there is enough. Which bytes that is depends on the text alone. ``without``
    are chunks to leave out.
    """

    def __init__(
        self, sources: Sequence[Source], sample_bytes: int | None = None, *, without: frozenset[str] = frozenset()
    ) -> None:
        self._sources = list(sources)
        self._limit = sample_bytes
        self._without = without
        self._chunk = max(_LEAST_CHUNK, min(_CHUNK, sample_bytes // _PLACES)) if sample_bytes else _CHUNK
        self.tally = passed_over_by(self._sources)
        self.held_out: list[str] = []
        self.held_out_bytes = 0
        self.trained_bytes = 0

    def __iter__(self) -> Iterator[str]:
        for chunk in self._chosen():
            if chunk in self._without:
                continue
            data = chunk.encode("utf-8")
            held_out = zlib.crc32(data) % _HELD_OUT_ONE_IN == 0 and self.held_out_bytes < _HELD_OUT_BYTES
            if held_out and self.trained_bytes:
                self.held_out.append(chunk)
                self.held_out_bytes += len(data)
                continue
            self.trained_bytes += len(data)
            yield chunk
            if self._limit and self.trained_bytes >= self._limit:
                return

    def _chosen(self) -> Iterator[str]:
        if not self._limit:
            yield from self._chunks(self._sources, self.tally)
        elif len(self._sources) < _PLACES:
            yield from _spread(lambda tally: self._chunks(self._sources, tally), self._limit, self.tally)
        else:
            names = {i: source.name.encode("utf-8", "surrogateescape") for i, source in enumerate(self._sources)}
            for i in sorted(names, key=lambda i: zlib.crc32(names[i])):
                one = [self._sources[i]]
                most = max(self._chunk, self._limit // _FILE_SHARE)
                yield from _spread(lambda tally, one=one: self._chunks(one, tally), most, self.tally)  # type: ignore[misc]

    def _chunks(self, sources: Sequence[Source], tally: Tally) -> Iterator[str]:
        for source in sources:
            for piece in source.pieces(tally):
                yield from chunks(piece.text, self._chunk)


def advice(sources: Sequence[Source]) -> str | None:
    """What a sample would save, for a corpus that takes long; None for others."""
    size = sum(size_of(part) for source in sources for part in getattr(source, "parts", [source]))
    if size < _LARGE:
        return None
    return (
        f"all of the {amount(size, 'B')} on disk are read; --sample_bytes {_SAMPLE} takes {amount(_SAMPLE, 'B')} of "
        f"text from all over them, in about 1/{size / _SAMPLE:.0f} of the time"
    )


def _spread(read: Callable[[Tally], Iterator[str]], most: int, tally: Tally) -> Iterator[str]:
    """Of the chunks that ``read`` gives, every time the same, about ``most`` bytes, as evenly as chunks allow.

    A little more than asked is let through, since a part of it is held out: the caller stops when it has enough.
    """
    total = sum(len(chunk.encode("utf-8")) for chunk in read(Tally()))
    share = min(1.0, most / max(1, total) * _HELD_OUT_ONE_IN / (_HELD_OUT_ONE_IN - 1))
    seen = taken = 0
    for chunk in read(tally):
        size = len(chunk.encode("utf-8"))
        if taken <= seen * share:
            taken += size
            yield chunk
        seen += size


def chunks(text: str, size: int) -> Iterator[str]:
    """``text`` in chunks of about ``size`` characters, cut behind line breaks where there are some."""
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end
