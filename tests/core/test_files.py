from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
import tokenizers

from lmtrain.core.errors import UserError
from lmtrain.core.files import (
    as_os_errors,
    atomic_file,
    atomic_folder,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)


@pytest.mark.parametrize("ended_by", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_no_scratch(ended_by: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})
    with pytest.raises(ended_by, match="half of it"), atomic_file(path) as stream:
        stream.write(b"half")
        raise ended_by("half of it")
    assert read_json(path) == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "store"
    with atomic_folder(target) as scratch:
        (scratch / "x").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as scratch:
        (scratch / "x").write_text("new")
        raise KeyboardInterrupt
    assert (target / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "store"
    for text in ("old", "new"):
        with atomic_folder(target) as scratch:
            assert not list(scratch.iterdir())
            (scratch / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    write_json(tmp_path / "ours", 1)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's own")
def test_a_full_disk_is_an_error_of_the_system_whichever_library_meets_it() -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    with pytest.raises(Exception, match="No space left") as bare:
        tokenizer.save("/dev/full")
    assert not isinstance(bare.value, OSError), "as_os_errors has nothing to do any more"
    with pytest.raises(OSError, match="No space left") as named, as_os_errors():
        tokenizer.save("/dev/full")
    assert named.value.errno == errno.ENOSPC
    with pytest.raises(ValueError, match="other"), as_os_errors():
        raise ValueError("something other")


def test_hashes_are_the_standard_ones(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 1_000_000)
    assert sha256_file(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
    assert sha256_json({"a": 1, "b": [2, "ü"]}) == sha256_json({"b": [2, "ü"], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})


def test_the_umask_which_is_of_all_threads_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read it is to change it: two threads that do that at once leave the process without one."""
    monkeypatch.setattr(os, "umask", None)
    (tmp_path / "plain").mkdir()
    with atomic_folder(tmp_path / "ours") as scratch:
        write_json(scratch / "x", 1)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_file_takes_the_place_of_a_file_only(tmp_path: Path) -> None:
    """``--output /dev/null``, typed by root, would make a file of the device."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is no ordinary file"):
        write_json(tmp_path / "pipe", 1)
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1
