"""Content hashes of files: a large one is hashed in parts, so that several threads find the hash of one file.

::

    up to 64 MiB     SHA-256 of its bytes, as ``sha256sum`` prints it
    larger           SHA-256 of the JSON list of the SHA-256 of each 64 MiB
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lmtrain.core.files import sha256_file, sha256_json

PART = 64 << 20


def hash_of_file(path: Path, pool: ThreadPoolExecutor | None = None) -> str:
    """The content hash of a file, its parts hashed by the threads of ``pool``. Raises OSError."""
    starts = range(0, path.stat().st_size, PART)
    if len(starts) <= 1:
        return sha256_file(path)
    return sha256_json([*(pool.map if pool else map)(lambda start: sha256_file(path, (start, start + PART)), starts)])
