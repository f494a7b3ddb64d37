"""Content hashes of files: a large one is hashed in parts, so that several threads find the hash of one file.

::

    up to 64 MiB     SHA-256 of its bytes, as ``sha256sum`` prints it
    larger           SHA-256 of the JSON list of the SHA-256 of each 64 MiB
"""

# Corpora of many small files: see opening.
# ruff: noqa: PTH123, PTH202

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lmtrain.core.files import sha256_file, sha256_json

PART = 64 << 20
_READ = 1 << 17  # larger ones are mapped afresh by each read


def hash_of_file(path: str, pool: ThreadPoolExecutor | None = None) -> str:
    """The content hash of a file, its parts hashed by the threads of ``pool``. Raises OSError."""
    starts = range(0, max(1, os.path.getsize(path)), PART)
    if len(starts) == 1:
        return sha256_file(Path(path))
    return sha256_json([*(pool.map if pool else map)(lambda start: _part(path, start), starts)])


def _part(path: str, start: int) -> str:
    digest, left = hashlib.sha256(), PART
    with open(path, "rb", buffering=0) as stream:
        stream.seek(start)
        while left and (data := stream.read(min(left, _READ))):
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()
