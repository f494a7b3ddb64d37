"""Write a checkpoint: everything into a scratch folder, hashed and flushed, then one rename."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lmtrain.core.files import as_os_errors, atomic_folder, write_json
from lmtrain.engine.checkpoints.manifest import describe_files, write_manifest

_ROOM = 4 << 20  # bytes that go to the file at once


@dataclass(frozen=True)
class Contents:
    """What goes into a checkpoint.

    ``write_weights`` writes the model and tokenizer into a folder as ``from_pretrained`` reads them; ``tensors`` are
    trees of tensors and plain values, ``records`` JSON values, both by file name; ``about`` goes into the manifest.
    """

    step: int
    write_weights: Callable[[Path], None]
    tensors: dict[str, Any]
    records: dict[str, Any]
    optimizer_state: bool = True
    about: dict[str, Any] = field(default_factory=dict)


def write_checkpoint(path: Path, contents: Contents) -> int:
    """Make the folder ``path``; it appears whole or, when this raises, not at all. Returns its size in bytes.

    Raises ``OSError`` where the file system is why, whichever library met it.
    """
    with atomic_folder(path) as scratch:
        return write_contents(scratch, contents, {})


def write_contents(scratch: Path, contents: Contents, known: Mapping[str, dict[str, Any]], **about: Any) -> int:
    """Fill the folder ``scratch``, with a manifest of all that lies in it; returns the size of its files in bytes.

    ``known`` describes the files that are there already, ``about`` goes into the manifest too.
    """
    with as_os_errors():
        contents.write_weights(scratch)
    written = {name: write_tensors(scratch / name, value) for name, value in contents.tensors.items()}
    for name, value in contents.records.items():
        write_json(scratch / name, value)
    files = describe_files(scratch, {**known, **written})
    state = {"step": contents.step, "optimizer_state": contents.optimizer_state, "files": files}
    write_manifest(scratch, {**contents.about, **about, **state})
    return sum(entry["size"] for entry in files.values())


def write_tensors(path: Path, value: Any) -> dict[str, Any]:
    """``torch.save`` of tensors and plain values; returns the ``size`` and ``sha256`` of the file.

    Raises ``OSError``; torch itself would turn it into a ``RuntimeError`` without its number.
    """
    with path.open("wb", buffering=0) as raw:
        stream = _Stream(raw.fileno())
        torch.save(value, stream)  # type: ignore[arg-type]
        stream.end()
    return {"size": stream.size, "sha256": stream.digest.hexdigest()}


class _Stream:
    """A file by its descriptor: what is written to it is hashed on its way. Why writing failed is told at the end.

    It goes past the page cache where the file system can. A training has no use for those pages, and where a virtual
    machine has to be given them first they took 4 s of the kernel's time a GB, beside the steps; past them it is 0.3 s.
    """

    def __init__(self, descriptor: int) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._error: OSError | None = None
        self._descriptor = descriptor
        self._room = memoryview(mmap.mmap(-1, _ROOM))  # at the start of a page, as the disk wants it
        self._filled = 0
        self._past_cache = _turn_cache(descriptor, off=True)

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        while rest and self._error is None:
            piece = rest[: _ROOM - self._filled]
            self._room[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            rest = rest[len(piece) :]
            if self._filled == _ROOM:
                self._put_out()
        return len(data)

    def flush(self) -> None:
        """torch asks for it when it is through; :meth:`end` does it."""

    def end(self) -> None:
        """Write what is left. Raises the ``OSError`` that writing failed with, whenever that was."""
        self._through_cache()  # the last piece is of any size
        self._put_out()
        if self._error is not None:
            raise self._error

    def _put_out(self) -> None:
        rest = self._room[: self._filled]
        self.digest.update(rest)
        self.size += self._filled
        self._filled = 0
        while rest and self._error is None:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except OSError as error:
                if not (self._past_cache and error.errno == errno.EINVAL):
                    self._error = error
                self._through_cache()  # which asks for no sizes: of pages, or where the disk is nearly full

    def _through_cache(self) -> None:
        if self._past_cache:
            self._past_cache = _turn_cache(self._descriptor, off=False)


def _turn_cache(descriptor: int, *, off: bool) -> bool:
    """Whether the page cache is out of the way of what is written to ``descriptor`` from now on."""
    if not hasattr(os, "O_DIRECT"):  # macOS, Windows
        return False
    from fcntl import F_GETFL, F_SETFL, fcntl

    flags = fcntl(descriptor, F_GETFL)
    try:
        fcntl(descriptor, F_SETFL, flags | os.O_DIRECT if off else flags & ~os.O_DIRECT)
    except OSError:  # tmpfs, some network file systems
        return False
    return off
