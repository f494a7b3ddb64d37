"""The text that every machine has: the source of the Python standard library, split by whole files."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from lmtrain.core.console import counted
from lmtrain.core.errors import UserError
from lmtrain.core.files import atomic_folder

_RECORDS = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow"}
# Installed packages lie inside the library's folder on some systems, and are not the library.
_NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "node_modules", ".git", ".venv"}


@dataclass(frozen=True, slots=True)
class DemoCorpus:
    """Two folders of files, and what they weigh. ``held_out`` is what the model is measured on."""

    train: Path
    held_out: Path
    train_files: int
    held_out_files: int
    train_bytes: int
    held_out_bytes: int


def standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def build_corpus(
    source: Path,
    folder: Path,
    *,
    suffixes: tuple[str, ...] | None = (".py",),
    without: Path | None = None,
    one_in: int = 40,
) -> DemoCorpus:
    """Copy the text files below ``source`` into ``folder/train`` and ``folder/held_out``.

    Files in UTF-8 whose names end in one of ``suffixes`` (None: in anything but those of records, of which a training
    takes a column) are taken; hidden ones are left out, and what lies below ``without``. A file is held out when the
    hash of its content says so (one in ``one_in``), so the choice depends neither on names nor on order. Files whose
    content occurs twice are taken once, so that nothing held out is seen in training.
    """
    if not source.is_dir():
        raise UserError(f"no such folder: {source}", flag="--source")
    own = without.resolve() if without is not None else None
    seen: set[str] = set()
    sizes = {"train": 0, "held_out": 0}
    counts = {"train": 0, "held_out": 0}
    with atomic_folder(folder) as scratch:
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            if _NOT_LIBRARY & set(inside.parts) or any(part.startswith(".") for part in inside.parts):
                continue
            is_taken = path.suffix.lower() not in _RECORDS if suffixes is None else path.suffix in suffixes
            if not is_taken or not path.is_file() or (own is not None and path.resolve().is_relative_to(own)):
                continue
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            if digest in seen or not _is_text(content):
                continue
            seen.add(digest)
            part = "held_out" if int(digest[:8], 16) % one_in == 0 else "train"
            copy = scratch / part / inside
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
            sizes[part] += len(content)
            counts[part] += 1
        if not counts["train"] or not counts["held_out"]:
            raise UserError(
                f"{source} has {counted(sum(counts.values()), 'text file')}"
                f"{' ending in ' + ', '.join(suffixes) if suffixes else ''}, too few to train on some and measure on "
                f"others; one in {one_in} is held out, by its content",
                flag="--source",
            )
    return DemoCorpus(
        folder / "train", folder / "held_out", counts["train"], counts["held_out"], sizes["train"], sizes["held_out"]
    )


def _is_text(content: bytes) -> bool:
    try:
        return b"\0" not in content and bool(content.decode("utf-8").strip())
    except UnicodeDecodeError:
        return False


def compressed_bits_per_byte(folder: Path) -> dict[str, float]:
    """What ``gzip -9`` and ``xz -9`` need for all files of a folder, one after another, in bits per byte.

    The compressor sees the files as one stream, which is its best case: it may look back into earlier files.
    """
    whole = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        "gzip -9": len(gzip.compress(whole, 9)) * 8 / len(whole),
        "xz -9": len(lzma.compress(whole, preset=9)) * 8 / len(whole),
    }
