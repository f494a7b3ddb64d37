"""Write a checkpoint: everything into a scratch folder, hashed and flushed, then one rename."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lmtrain.core.files import as_os_errors, atomic_folder, write_json
from lmtrain.engine.checkpoints.manifest import describe_files, write_manifest

_BUFFER = 1 << 20  # bytes: larger pieces go to the file as they are


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
        with as_os_errors():
            contents.write_weights(scratch)
        for name, value in contents.tensors.items():
            write_tensors(scratch / name, value)
        for name, value in contents.records.items():
            write_json(scratch / name, value)
        files = describe_files(scratch)
        state = {"step": contents.step, "optimizer_state": contents.optimizer_state, "files": files}
        write_manifest(scratch, {**contents.about, **state})
        return sum(entry["size"] for entry in files.values())


def write_tensors(path: Path, value: Any) -> None:
    """``torch.save`` of tensors and plain values, whose errors are those of the file system.

    Raises ``OSError``; torch itself would turn it into a ``RuntimeError`` without its number.
    """
    with path.open("wb", buffering=0) as raw:
        stream = io.BufferedWriter(_Descriptor(raw.fileno()), _BUFFER)
        watched = _Watched(stream)
        try:
            torch.save(value, watched)  # type: ignore[arg-type]
            stream.flush()
        except (RuntimeError, OSError):
            if watched.error is not None:
                raise watched.error from None
            raise
        finally:
            if watched.error is not None:
                stream.raw.failed = True  # or closing it would try to write the rest again
            stream.close()


class _Descriptor(io.RawIOBase):
    """A file to write to, by its descriptor, which stays open."""

    failed = False

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data) if self.failed else os.write(self._descriptor, data)


class _Watched:
    """A stream that remembers why it failed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is not None:
            return len(data)  # torch ends its archive even when it failed
        try:
            return int(self._stream.write(data))
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self.error = error
                raise
