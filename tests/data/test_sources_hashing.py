"""Content hashes: of small files what ``sha256sum`` prints, of large ones the same by any number of threads."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lmtrain.core import files
from lmtrain.core.errors import UserError
from lmtrain.data.sources import Reading, hashing, resolve_sources
from lmtrain.data.sources.hashing import hash_of_file
from lmtrain.data.sources.text import TextSource


@pytest.fixture(autouse=True)
def parts_of_a_thousand_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "PART", 1000)
    monkeypatch.setattr(files, "_CHUNK", 300)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 3000, 3001, 9876])
def test_it_is_a_function_of_the_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(number * 7 % 251 for number in range(size))
    (tmp_path / "a.txt").write_bytes(data)
    path = tmp_path / "a.txt"
    parts = [sha256(data[start : start + 1000]) for start in range(0, size, 1000)]
    expected = parts[0] if size <= 1000 else sha256(json.dumps(parts, separators=(",", ":")).encode())
    assert hash_of_file(path) == expected
    for threads in (1, 3):
        with ThreadPoolExecutor(threads) as pool:
            assert hash_of_file(path, pool) == expected


def test_a_byte_anywhere_makes_another(tmp_path: Path) -> None:
    path, found = tmp_path / "a.txt", set()
    for at in (None, 0, 999, 1000, 2999, 3000, 3499):
        data = bytearray(3500)
        if at is not None:
            data[at] = 1
        path.write_bytes(data)
        found.add(hash_of_file(path))
    path.write_bytes(bytes(3501))
    assert len(found | {hash_of_file(path)}) == 8


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 5000)
    (source,) = resolve_sources([str(tmp_path / "a.txt")], Reading())
    assert isinstance(source, TextSource)
    (tmp_path / "a.txt").unlink()
    with ThreadPoolExecutor(2) as pool, pytest.raises(UserError, match="no such file"):
        source.file.content_hash(pool)
