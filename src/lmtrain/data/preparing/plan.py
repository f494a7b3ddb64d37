"""The sources in segments, in order: what one process reads at a time.

::

    a.jsonl  |--4 MB--|--4 MB--|-1-|   b.txt.gz |--------|   c.txt  |--4 MB--|--3 MB-|
    segments     0        1      2                  3                   4        5
    parts    |------ 0 of 2 --------|----------------------- 1 of 2 ----------------|

Where segments begin is a function of the sources alone. A text file that is one document is entered only where the
tokenizer is proven not to notice; where no such place is found, a segment holds nothing, and the one before more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from lmtrain.core.types import Piece, Source, Tally
from lmtrain.data.seams import Seams
from lmtrain.data.sources.decoding import byte_order_mark
from lmtrain.data.sources.records import RecordSource
from lmtrain.data.sources.segments import Part, Span, size_of, spans_of
from lmtrain.data.sources.text import TextSource
from lmtrain.data.validation_cut import Cut, cut_pieces

_SEARCHED = 1 << 16  # bytes looked at for a place to enter a document


@dataclass(frozen=True, slots=True)
class Segment:
    """A source or a span of it; ``size`` is its bytes on disk. ``step``: how far apart its source's spans begin."""

    source: int
    size: int
    span: Span | None = None
    step: int = 0


def segments_of(sources: Sequence[Source], cut: Cut | None, step: int) -> list[Segment]:
    """All segments in order. A source in which ``cut`` lies is entered only where its bytes are the text's."""
    found: list[Segment] = []
    for number, source in enumerate(sources):
        spans = []
        if cut is None or cut.source != number or (isinstance(source, TextSource) and source.is_bytes):
            spans = spans_of(source, step)
        found += [Segment(number, size, span, step) for span, size in spans] or [Segment(number, size_of(source))]
    return found


def ranges_of(segments: Sequence[Segment], count: int) -> list[range]:
    """``count`` runs of segments of nearly equal bytes, together all of them; some are empty where there are few."""
    whole, before = sum(segment.size for segment in segments), 0
    starts = [0]
    for number, segment in enumerate(segments):
        # the segment goes to the part in which its middle lies
        while len(starts) < count and (2 * before + segment.size) * count >= 2 * whole * len(starts):
            starts.append(number)
        before += segment.size
    starts += [len(segments)] * (count + 1 - len(starts))
    return [range(start, stop) for start, stop in pairwise(starts)]


def read(
    segment: Segment, sources: Mapping[int, Source] | Sequence[Source], cut: Cut | None, seams: Seams, tally: Tally
) -> Iterator[Piece]:
    """The pieces of a segment. Its first does not begin a document where it goes on with that of the one before."""
    source = sources[segment.source]
    if cut is not None and cut.source != segment.source:
        cut = None
    if segment.span is None:
        pieces = source.pieces(tally)
    elif isinstance(source, TextSource) and source.reading.documents == "auto":
        stretch = _stretch(source, segment, seams)
        if stretch is None:
            return
        pieces = Part(source, stretch).pieces(tally)
        if cut is not None and stretch.start:
            mark = len(byte_order_mark(source.file.head(4), source.reading.codec))
            cut = replace(cut, offset=cut.offset + mark - stretch.start)
    else:
        assert isinstance(source, TextSource | RecordSource)
        part = Part.of(source, segment.span)
        if part is None:
            return
        pieces = part.pieces(tally)
    yield from cut_pieces(pieces, cut) if cut else pieces


def _stretch(source: TextSource, segment: Segment, seams: Seams) -> Span | None:
    """The bytes of a document from where this segment can begin to where the next can; None: it cannot begin."""
    assert segment.span is not None
    size, window = source.file.size, min(segment.step, _SEARCHED)
    start = seams.boundary(source, segment.span.start, window) if segment.span.start else 0
    if start is None:
        return None
    for near in range(segment.span.stop, size, segment.step):
        if (stop := seams.boundary(source, near, window)) is not None:
            return Span(start, stop)
    return Span(start, size)
