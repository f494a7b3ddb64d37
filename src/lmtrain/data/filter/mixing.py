"""Several sources mixed in given shares, once it is known how much of each is kept.

What passes the rules is first laid down source by source, so the shares can be met exactly and without reading
anything twice: the output is as long as the shares allow without repeating a document. It ends when the first source is
used up; of the others, documents are left out all along. Which ones, and what follows on what, is drawn for
``_CHUNK`` documents at a time from (seed, number of the chunk)::

    kept         code 700, prose 900; shares 0.7 and 0.3
    taken        code 700, prose 300: one in three
    each chunk   179 or 180 of code and 76 or 77 of prose, in an order of its own
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmtrain.config.mix import Mix
from lmtrain.core.errors import UserError
from lmtrain.core.streams import stream
from lmtrain.data.filter.account import Account
from lmtrain.data.filter.report import keeps_nothing
from lmtrain.data.filter.shards import cut_back

if TYPE_CHECKING:
    from lmtrain.data.filter.segment import Segment
    from lmtrain.data.filter.tasks import Task

LEFT_OUT = "mix"
_CHUNK = 256  # documents


class Kept:
    """What is kept of each source, one source behind the other: lines of JSON, and the bytes that each counts."""

    def __init__(self, folder: Path, spans: list[int], documents: int) -> None:
        """Goes on behind ``documents``; ``spans`` are the bytes of each source's lines, and go on with it."""
        folder.mkdir(exist_ok=True)
        self.spans = spans
        self._lines_at, self._sizes_at = folder / "lines", folder / "sizes"
        self._lines, self._sizes = cut_back(self._lines_at, sum(spans)), cut_back(self._sizes_at, 8 * documents)

    def add(self, segment: Segment) -> None:
        """Segments come in the order of the sources."""
        self.spans[segment.group] += self._lines.write(segment.payload)
        self._sizes.write(np.asarray(segment.sizes, "<i8").tobytes())

    def flush(self) -> None:
        for file in (self._lines, self._sizes):
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        self._lines.close()
        self._sizes.close()

    def documents(self, group: int, first: int, count: int) -> Iterator[tuple[bytes, int]]:
        """The ``count`` documents of a source, the first of which is document ``first`` of all: line and size."""
        with self._lines_at.open("rb") as lines, self._sizes_at.open("rb") as sizes:
            lines.seek(sum(self.spans[:group]))
            sizes.seek(8 * first)
            for start in range(0, count, _CHUNK):
                some = min(_CHUNK, count - start)
                for size in np.frombuffer(sizes.read(8 * some), "<i8").tolist():
                    yield lines.readline(), size


def taken_of(accounts: Sequence[Account], mix: Mix) -> list[int]:
    """How many documents of each source the output has: as many as the shares allow, each document once.

    Raises :class:`UserError` for a source of which nothing is kept.
    """
    counts = [account.kept.documents for account in accounts]
    for name, account in zip(mix.shares, accounts, strict=True):
        if not account.kept.documents:
            why = keeps_nothing(account).problems[0]
            raise UserError(
                f"of {name} nothing is kept, so it can have no share ({why.flag} {why.text.partition(': ')[0]}); "
                "change the rule, or leave it out of the mix",
                flag="--mix",
            )
    shares = [Fraction(share).limit_denominator(10**9) for share in mix.shares.values()]
    whole = min(count / share for count, share in zip(counts, shares, strict=True))
    return [min(count, round(whole * share)) for count, share in zip(counts, shares, strict=True)]


def mixed(
    kept: Kept, accounts: Sequence[Account], taken: Sequence[int], seed: int
) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
    """The output, some documents at a time: their lines, and by source how many they are and their bytes."""
    counts = [account.kept.documents for account in accounts]
    readers = [
        _thinned(kept.documents(group, sum(counts[:group]), count), count, taken[group], seed, group)
        for group, count in enumerate(counts)
    ]
    whole = sum(taken)
    for number, start in enumerate(range(0, whole, _CHUNK)):
        before, until = _divided(start, taken), _divided(min(start + _CHUNK, whole), taken)
        many = np.subtract(until, before)
        order = stream(seed, "filter mix", number).permutation(np.repeat(np.arange(len(taken)), many))
        lines = []
        sizes = [0] * len(taken)
        for group in order.tolist():
            line, size = next(readers[group])
            lines.append(line)
            sizes[group] += size
        yield b"".join(lines), list(zip(many.tolist(), sizes, strict=True))


def require_one_column(tasks: Sequence[Task], mix: Mix) -> None:
    """The text of all sources has to lie in one field, or whoever reads the output finds only some of it."""
    columns: dict[str, str] = {}
    for task in tasks:
        columns.setdefault(task.column or "text", list(mix.shares)[task.group])
    if len(columns) > 1:
        shown = ", ".join(f"{column!r} in {name}" for column, name in columns.items())
        raise UserError(
            f"the text lies in fields of different names ({shown}), and the output has one; filter each into a folder "
            "of its own, and mix in training: lmtrain clm --train_file NAME=FOLDER --mix",
            flag="--mix",
        )


def _thinned(
    documents: Iterator[tuple[bytes, int]], count: int, taken: int, seed: int, group: int
) -> Iterator[tuple[bytes, int]]:
    """``taken`` of ``count`` documents, spread over all of them."""
    for number, start in enumerate(range(0, count, _CHUNK)):
        stop = min(start + _CHUNK, count)
        many = stop * taken // count - start * taken // count
        chosen = np.zeros(stop - start, bool)
        draw = stream(seed, "filter share", group, number)
        chosen[draw.choice(stop - start, many, replace=False)] = True
        for wanted in chosen.tolist():
            document = next(documents)
            if wanted:
                yield document


def _divided(first: int, counts: Sequence[int]) -> list[int]:
    """How many of the ``first`` documents are of each source.

    None of these numbers shrinks when ``first`` grows: each source takes its part of what those before it left.
    """
    parts, left, whole = [], first, sum(counts)
    for count in counts:
        part = left * count // whole if whole else 0
        parts.append(part)
        left, whole = left - part, whole - count
    return parts
