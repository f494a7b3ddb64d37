"""The texts kept so far, and which of them a new text repeats."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from lmtrain.core.errors import UserError
from lmtrain.data.duplicates.bands import Bands, likeness
from lmtrain.data.duplicates.marks import Marks
from lmtrain.data.duplicates.shingles import jaccard
from lmtrain.data.duplicates.table import Table

_MOST = 32  # texts remembered for one key of a band: what thousands of different texts share tells nothing
_FILES = ("digests", "bands", "ends", "shingles")


@dataclass(frozen=True)
class Repeat:
    """``number`` of the kept text that is repeated (from 0), and the ``jaccard`` similarity: 1.0 when equal."""

    number: int
    jaccard: float
    equal: bool


class Kept:
    """Remembers texts by their marks, in memory and in files that a later process goes on from.

    Memory: 30 to 65 bytes a text, with near duplicates (18 bands) 0.3 to 0.65 kB. On disk: 16 bytes a text, with near
    duplicates also 8 for each of its different runs of five words, some 1.3 times the text.

    A near duplicate is decided by the true similarity of the sets of shingles, never by the estimate. Candidates are
    asked in the order in which they were kept, so the answer depends on the texts and their order alone.
    """

    def __init__(self, folder: Path, *, count: int = 0, bands: Bands | None = None, threshold: float = 1.0) -> None:
        """Goes on after the first ``count`` texts that ``folder`` holds."""
        self._bands = bands
        self._threshold = threshold
        self._halves = Table()
        self._keys = Table()
        self._second = np.zeros(1024, dtype=np.uint64)
        self._ends = np.zeros(1024, dtype=np.uint64)
        self.count = 0
        folder.mkdir(parents=True, exist_ok=True)
        used = _FILES if bands else _FILES[:1]
        self._files: dict[str, BinaryIO] = {}
        for name in used:
            path = folder / f"{name}.bin"
            path.touch()
            self._files[name] = path.open("r+b")
        try:
            self._load(count)
        except BaseException:
            self.close()
            raise

    def _load(self, count: int) -> None:
        def cut(name: str, numbers: int) -> BinaryIO:
            file = self._files[name]
            if file.seek(0, os.SEEK_END) < 8 * numbers:  # it would be filled up with zeros
                raise UserError(f"{file.name} has lost what was written to it; begin anew with --overwrite")
            file.truncate(8 * numbers)
            file.seek(0)
            return file

        def part(name: str, numbers: int) -> np.ndarray:
            return np.fromfile(cut(name, numbers), dtype=np.uint64)

        digests = part("digests", 2 * count).reshape(-1, 2)
        keys = part("bands", count * self._bands.count).reshape(count, self._bands.count) if self._bands else None
        ends = part("ends", count) if self._bands else None
        for number in range(count):
            self._remember(digests[number], None if keys is None else keys[number],
                           0 if ends is None else int(ends[number]))  # fmt: skip
        if ends is not None:
            cut("shingles", int(ends[-1]) if count else 0).seek(0, os.SEEK_END)

    def find(self, marks: Marks, place: int) -> Repeat | None:
        """What the text at ``place`` of ``marks`` repeats."""
        first, second = marks.digests[place].tolist()
        for number in self._halves.values(first or 1):
            if self._second[number] == second:
                return Repeat(number, 1.0, True)
        if self._bands is None or marks.keys is None or not len(marks.sets[place]):
            return None
        candidates = {number for key in marks.keys[place].tolist() for number in self._keys.values(key)}
        own = marks.sets[place]
        for number in sorted(candidates):
            size = self._size(number)
            if min(size, len(own)) < self._threshold * max(size, len(own)):
                continue  # the similarity is at most the ratio of the sizes
            similarity = jaccard(own, self.shingles(number))
            if similarity >= self._threshold:
                return Repeat(number, similarity, False)
        return None

    def add(self, marks: Marks, place: int) -> None:
        """Keep the text at ``place``."""
        self._files["digests"].write(marks.digests[place].tobytes())
        keys, end = None, 0
        if self._bands and marks.keys is not None:
            keys = marks.keys[place] if len(marks.sets[place]) else np.zeros_like(marks.keys[place])
            end = (int(self._ends[self.count - 1]) if self.count else 0) + len(marks.sets[place])
            self._files["bands"].write(keys.tobytes())
            self._files["ends"].write(np.uint64(end).tobytes())
            self._files["shingles"].write(marks.sets[place].tobytes())
        self._remember(marks.digests[place], keys, end)

    def _remember(self, digest: np.ndarray, keys: np.ndarray | None, end: int) -> None:
        if self.count == len(self._second):
            self._second = np.append(self._second, np.zeros_like(self._second))
            self._ends = np.append(self._ends, np.zeros_like(self._ends))
        first, second = digest.tolist()
        self._halves.add(first or 1, self.count)
        self._second[self.count], self._ends[self.count] = second, end
        for key in () if keys is None else keys.tolist():
            if key and len(self._keys.values(key)) < _MOST:
                self._keys.add(key, self.count)
        self.count += 1

    def _begin_of(self, number: int) -> int:
        return int(self._ends[number - 1]) if number else 0

    def _size(self, number: int) -> int:
        return int(self._ends[number]) - self._begin_of(number)

    def shingles(self, number: int) -> np.ndarray:
        """The shingles of a kept text."""
        file = self._files["shingles"]
        file.flush()
        begin = self._begin_of(number)
        file.seek(8 * begin)
        data = file.read(8 * self._size(number))
        file.seek(0, os.SEEK_END)
        return np.frombuffer(data, dtype=np.uint64)

    def estimate(self, marks: Marks, place: int, number: int) -> float:
        """The similarity of a text to a kept one as their signatures tell it."""
        return likeness(marks.sets[place], self.shingles(number))

    def flush(self) -> None:
        """Everything on disk, also after a power cut."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())

    def __enter__(self) -> Kept:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
