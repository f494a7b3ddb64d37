"""What is kept, as it comes: a spool file for each shard of the output.

A spool can be cut back to any length it once had, so an interrupted filter goes on in the middle of a shard.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from lmtrain.core.errors import UserError
from lmtrain.data.filter.tables import as_stream, from_stream

if TYPE_CHECKING:
    from lmtrain.data.filter.segment import Spooled

Format = Literal["parquet", "jsonl.zst"]


@dataclass(frozen=True)
class Shard:
    """The kept documents of a stretch: ``bytes`` as they lie in the spool, ``number`` from 0."""

    number: int
    documents: int
    bytes: int

    def name(self, form: Format) -> str:
        return shard_name(self.number, form)


def shard_name(number: int, form: Format) -> str:
    return f"part-{number:05d}.{form}"


class Spool:
    """The records of the shard under way. Lines are written as they are, Arrow streams behind their length."""

    def __init__(self, folder: Path, kind: Spooled, number: int = 0, size: int = 0) -> None:
        """Goes on after the first ``size`` bytes of spool ``number``."""
        self._folder = folder
        self._kind = kind
        self.open(number, size)

    def open(self, number: int, size: int = 0) -> None:
        self.number, self.bytes = number, size
        self._file = cut_back(spool_path(self._folder, number), size)

    def write(self, payload: bytes) -> None:
        if not payload:
            return
        if self._kind == "arrow":
            self.bytes += self._file.write(len(payload).to_bytes(8, "little"))
        self.bytes += self._file.write(payload)

    def flush(self) -> None:
        """Everything on disk, also after a power cut."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def spool_path(folder: Path, number: int) -> Path:
    return folder / f"spool-{number:05d}"


def cut_back(path: Path, size: int) -> BinaryIO:
    """The file, opened behind its first ``size`` bytes; the others are dropped.

    Raises :class:`UserError` where it has fewer: cut to that length it would be filled up with zeros.
    """
    path.touch()
    file: BinaryIO = path.open("r+b")
    found = file.seek(0, os.SEEK_END)
    if found < size:
        file.close()
        raise UserError(f"{path} has {found:,} bytes, and {size:,} were written to it before the filter was stopped: "
                        "the disk has lost some; begin anew with --overwrite", flag="--output")  # fmt: skip
    file.truncate(size)
    file.seek(size)
    return file


def without(payload: bytes, kind: Spooled, lengths: list[int], keep: list[bool]) -> bytes:
    """The payload of a segment less the records that are not to be kept."""
    if kind == "lines":
        parts, at = [], 0
        for length, kept in zip(lengths, keep, strict=True):
            if kept:
                parts.append(payload[at : at + length])
            at += length
        return b"".join(parts)
    import pyarrow as pa

    batches, at = [], 0
    for batch in from_stream(payload):
        left = batch.filter(pa.array(keep[at : at + len(batch)], pa.bool_()))
        at += len(batch)
        batches += [left] if len(left) else []
    return as_stream(batches)
