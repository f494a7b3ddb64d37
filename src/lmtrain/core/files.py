"""Files and folders that appear whole or not at all, and the hashes that name their content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from lmtrain.core.errors import UserError

_CHUNK = 1 << 17  # larger ones are mapped afresh by each read, which doubles the time for small files
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS}  # network file systems, of a folder
_IN_RUST = re.compile(r"\(os error (\d+)\)")
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NO_RIGHT: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Let what libraries written in Rust say of the file system be an ``OSError`` with its number.

    tokenizers raises a bare ``Exception`` ("No space left on device (os error 28)"), safetensors its own kind.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        found = _IN_RUST.search(str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number)) from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut (POSIX only).

    Raises ``OSError`` when that fails, and not when the system knows no such thing.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows cannot open folders
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file below ``folder``, every folder and itself, the inner ones first."""
    for entry in sorted(folder.rglob("*"), key=lambda path: len(path.parts), reverse=True):
        if entry.is_dir():
            sync_folder(entry)
        elif entry.is_file():
            with entry.open("r+b" if os.name == "nt" else "rb") as stream:  # Windows flushes what may be written to
                os.fsync(stream.fileno())
    sync_folder(folder)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside ``path`` for writing; it takes the name ``path`` only when all went well.

    Raises :class:`UserError` for a device, a pipe or a folder, whose name the file would take.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no ordinary file, and would be replaced by one; name another")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _beside(path, ".tmp")
    try:
        with scratch.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    except BaseException:
        with suppress(OSError):
            scratch.unlink()
        raise
    sync_folder(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty scratch folder beside ``path``; rename it to ``path`` only when all went well.

    An earlier folder at ``path`` is replaced; of a link only the link. Files and folders inside are synced before the
    rename. What a killed process leaves behind is for :func:`clear_scratch`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _beside(path, ".tmp")
    scratch.mkdir()
    try:
        yield scratch
        sync_tree(scratch)
        if path.is_symlink():
            path.unlink()  # what it leads to is not ours to replace
        if path.exists():
            old = _beside(path, ".old")
            path.replace(old)
            try:
                scratch.replace(path)
            except BaseException:
                old.replace(path)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            scratch.replace(path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    sync_folder(path.parent)


def _beside(path: Path, ending: str) -> Path:
    """A name that nothing has. (What :mod:`tempfile` makes is private, and the umask, by which it would be opened to
    others again, cannot be read without changing it for all threads.)"""
    return path.parent / f".{path.name}.{os.urandom(4).hex()}{ending}"


def put_back(parent: Path, pattern: str) -> None:
    """Give folders in ``parent`` that a killed :func:`atomic_folder` was replacing their names back, where the new one
    did not get it; ``pattern`` is a glob of names. Call it when nobody else writes there."""
    for left in parent.glob(f".{pattern}.*.old"):
        named = parent / left.name[1:].rsplit(".", 2)[0]
        with suppress(OSError):
            if left.is_dir() and not left.is_symlink() and not named.exists() and any(left.iterdir()):
                left.replace(named)


def clear_scratch(parent: Path, pattern: str) -> list[str]:
    """Remove what killed :func:`atomic_file` and :func:`atomic_folder` calls left in ``parent`` for the names of the
    glob ``pattern``, after :func:`put_back`. Returns the names of what was removed."""
    put_back(parent, pattern)
    gone = []
    for left in sorted(parent.glob(f".{pattern}.*")):
        if left.suffix not in (".tmp", ".old") or left.is_symlink():
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()
        gone.append(left.name)
    return gone


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as stream:
        stream.write(text.encode("utf-8"))


def json_text(value: Any) -> str:
    """``value`` as our files hold it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    write_text(path, json_text(value))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_record(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``, for what can do without it: empty where there is none, or none that can be read."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def sha256_file(path: Path, span: tuple[int, int] | None = None) -> str:
    """SHA-256 of a file's bytes, as ``sha256sum`` prints it; ``span``: of those from one place up to another."""
    digest, left = hashlib.sha256(), sys.maxsize
    with path.open("rb", buffering=0) as stream:
        if span:
            left = span[1] - stream.seek(span[0])
        while chunk := stream.read(min(left, _CHUNK)):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: the same for equal values, whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
