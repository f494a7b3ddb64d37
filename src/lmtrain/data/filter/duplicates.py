"""Kept documents whose text, or nearly, was kept before, are dropped: the first in the order of the input stays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lmtrain.data.duplicates.bands import Bands
from lmtrain.data.duplicates.kept import Kept, Repeat
from lmtrain.data.filter.account import Account
from lmtrain.data.filter.segment import Segment, Spooled
from lmtrain.data.filter.shards import Format, Shard, cut_back, without

EXACT, NEAR = "exact duplicate", "near duplicate"
_SAMPLES = 20


class Duplicates:
    """Takes duplicates out of segments, one after another; its files are in ``folder``."""

    def __init__(
        self,
        folder: Path,
        kind: Spooled,
        bands: Bands | None,
        threshold: float,
        *,
        kept: int = 0,
        removed: int = 0,
        samples: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Goes on after ``kept`` and ``removed`` documents."""
        self._kind = kind
        self._kept = Kept(folder, count=kept, bands=bands, threshold=threshold)
        self._repeated = cut_back(folder / "repeated.bin", 4 * removed)  # of each removed document: the kept one
        self.removed = removed
        self.samples = list(samples)

    def left(self, segment: Segment) -> Segment:
        """The segment less its duplicates, whose account says so."""
        marks = segment.marks
        if marks is None:
            return segment
        keep = []
        for place in range(len(marks)):
            repeat = self._kept.find(marks, place)
            keep.append(repeat is None)
            if repeat is None:
                self._kept.add(marks, place)
                continue
            self._drop(segment.account, segment.sizes[place], repeat)
            if len(self.samples) < _SAMPLES:
                self._sample(segment, place, repeat)
        if not all(keep):
            segment.payload = without(segment.payload, self._kind, segment.lengths, keep)
            segment.sizes = [size for size, kept in zip(segment.sizes, keep, strict=True) if kept]
        return segment

    def _drop(self, account: Account, size: int, repeat: Repeat) -> None:
        account.kept.add(-1, -size)
        account.drop(EXACT if repeat.equal else NEAR, 1, size)
        self._repeated.write(repeat.number.to_bytes(4, "little"))
        self.removed += 1

    def _sample(self, segment: Segment, place: int, repeat: Repeat) -> None:
        estimate = 1.0 if repeat.equal else self._kept.estimate(segment.marks, place, repeat.number)  # type: ignore[arg-type]
        self.samples.append(
            {
                "dropped": segment.places[place],
                "kept": repeat.number,
                "jaccard": round(repeat.jaccard, 4),
                "estimated": round(estimate, 4),
            }
        )

    def flush(self) -> None:
        self._kept.flush()
        self._repeated.flush()
        os.fsync(self._repeated.fileno())

    def report(self, shards: Sequence[Shard], form: Format) -> dict[str, Any]:
        """How many groups of equal or similar texts there were, and samples of what was dropped."""
        self._repeated.flush()
        self._repeated.seek(0)
        numbers, counts = np.unique(np.fromfile(self._repeated, dtype="<u4"), return_counts=True)
        self._repeated.seek(0, os.SEEK_END)
        samples = [{**sample, "kept": _place(sample["kept"], shards, form)} for sample in self.samples]
        return {
            "groups": len(numbers),
            "removed": self.removed,
            "largest_group": int(counts.max()) + 1 if len(counts) else 0,
            "samples": samples,
        }

    def __enter__(self) -> Duplicates:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept.__exit__(kind, error, trace)
        self._repeated.close()


def _place(number: int, shards: Sequence[Shard], form: Format) -> str:
    """Where a kept document lies in the output."""
    before = 0
    for shard in shards:
        if number < before + shard.documents:
            return f"{shard.name(form)}, record {number - before + 1}"
        before += shard.documents
    return f"record {number + 1}"
