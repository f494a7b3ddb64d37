"""``manifest.json``: which files make a checkpoint, by size and SHA-256, and where it was made.

The manifest carries a hash of itself, so a damaged byte anywhere in a checkpoint is noticed. Files that it does not
list are no part of the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lmtrain.core.files import json_text, sha256_file, sha256_json, write_json

MANIFEST = "manifest.json"
_FORMAT = 1


def describe_files(folder: Path, known: Mapping[str, dict[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """Size and hash of every file below ``folder`` but the manifest, by its path with ``/``.

    ``known`` are those of files that who wrote them described already.
    """
    known = known or {}
    names = {
        entry.relative_to(folder).as_posix(): entry
        for entry in sorted(folder.rglob("*"))
        if entry.is_file() and entry != folder / MANIFEST
    }
    return {name: known[name] if name in known else describe(entry) for name, entry in names.items()}


def describe(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_file(path)}


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write ``content`` (``step``, ``optimizer_state``, ``files``, ``versions``, ``machine``) as the manifest."""
    content = {"format": _FORMAT, **{key: value for key, value in content.items() if key not in ("format", "sha256")}}
    write_json(folder / MANIFEST, {**content, "sha256": sha256_json(content)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, checked against its own hash. Raises ``ValueError`` with what is wrong, or ``OSError``."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        content = json.loads(text)
    except ValueError:  # UnicodeDecodeError and JSONDecodeError are
        raise ValueError(f"{MANIFEST} is damaged") from None
    whole = isinstance(content, dict) and text == json_text(content)
    if not whole or content.pop("sha256", None) != sha256_json(content):
        raise ValueError(f"{MANIFEST} is damaged")
    if not isinstance(content.get("format"), int) or not isinstance(content.get("files"), dict):
        raise ValueError(f"{MANIFEST} is no manifest of a checkpoint")
    if content["format"] > _FORMAT:
        raise ValueError(f"{MANIFEST} was written by a newer lmtrain (format {content['format']})")
    return content


def is_inside(name: str) -> bool:
    """Whether a name that was read somewhere is one of a file below the folder that it is read in."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return bool(parts) and ".." not in parts and not PurePosixPath(name).is_absolute() and ":" not in parts[0]


def damage(folder: Path, content: dict[str, Any], *, hashes: bool = True) -> str | None:
    """What of the files in ``folder`` is not as its manifest's ``content`` says; None when all is. Without ``hashes``
    only names and sizes are looked at."""
    for name, expected in content["files"].items():
        if not is_inside(name):
            return f"{MANIFEST} names {name!r}, which is no file of it"
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != expected["size"]:
            return f"{name} has {size:,} bytes instead of {expected['size']:,}"
    for name, expected in content["files"].items():  # the cheap checks of all files first
        if hashes and sha256_file(folder / name) != expected["sha256"]:
            return f"{name} is damaged (its hash differs)"
    return None
