"""Large stores: compared once, beside the work; damage is heard of by whoever reads, and by the next run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import CODE, Texts
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtrain.data import checksums
from lmtrain.data import store as stores
from lmtrain.data.checksums import DamagedStoreError, Watch, difference
from lmtrain.data.preparing import Request, prepare
from lmtrain.data.ready import open_store
from lmtrain.data.store import BIN, TokenStore
from lmtrain.data.store_writer import StoreWriter
from lmtrain.data.tokenizer_files import TokenizerFiles


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "AT_ONCE", 0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are compared from now on."""
    files: list[str] = []

    def counted(file: Path, *about: Any) -> str | None:
        files.append(file.name)
        return difference(file, *about)

    monkeypatch.setattr(stores, "difference", counted)
    return files


def stored(folder: Path) -> Path:
    folder.mkdir()
    with StoreWriter(folder, 1000) as writer:
        writer.append(np.arange(900, dtype=np.uint32), np.array([0, 400, 900]), [True, True], [1, 2], [3, 4])
        writer.finish({"key": "k", "sources": []})
    return folder


def flip(file: Path, at: int = 5) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        (byte,) = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte ^ 4]))


def watched(folder: Path, cache: Path, remedy: str = "type this") -> TokenStore:
    store = TokenStore.open(folder)
    store.watch(cache, remedy)
    return store


def settled(store: TokenStore) -> TokenStore:
    """``store`` when the thread is through."""
    assert store._watch is not None
    if store._watch._thread is not None:
        store._watch._thread.join()
    return store


def test_a_whole_store_is_read_once_and_not_again_until_it_changes(tmp_path: Path, read: list[str]) -> None:
    folder, cache = stored(tmp_path / "s"), tmp_path / "cache"
    assert settled(watched(folder, cache)).document(0)[:3].tolist() == [0, 1, 2]
    assert sorted(read) == ["documents.bin", "tokens.bin", "tokens.idx"]
    settled(watched(folder, cache))
    assert len(read) == 3
    os.utime(folder / BIN)
    settled(watched(folder, cache))
    assert len(read) == 6


@pytest.mark.parametrize("name", ["tokens.bin", "tokens.idx", "documents.bin"])
def test_damage_reaches_who_reads_and_the_next_run(tmp_path: Path, read: list[str], name: str) -> None:
    folder, cache = stored(tmp_path / "s"), tmp_path / "cache"
    flip(folder / name, at=60 if name == "tokens.idx" else 5)
    store = settled(watched(folder, cache))
    with pytest.raises(DamagedStoreError, match=f"{folder} is damaged: the bytes of {name} have changed.*; type this"):
        store.document(0)
    read.clear()
    with pytest.raises(DamagedStoreError, match=f"{name} have changed.*; type that"):
        watched(folder, cache, "type that")
    assert read == []


def test_a_time_that_was_set_back_hides_nothing(tmp_path: Path) -> None:
    folder, cache = stored(tmp_path / "s"), tmp_path / "cache"
    settled(watched(folder, cache))
    before = (folder / BIN).stat()
    time.sleep(0.02)  # file systems count time in ticks
    flip(folder / BIN)
    os.utime(folder / BIN, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DamagedStoreError, match="between byte 0 and byte 1,800"):
        settled(watched(folder, cache)).document(0)


def test_a_loaders_worker_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker opened the store by its path, before the thread of the first process was through."""
    monkeypatch.setattr(checksums, "_LOOK_EVERY", 0.0)
    folder, cache = stored(tmp_path / "s"), tmp_path / "cache"
    monkeypatch.setattr(Watch, "begin", Watch.look)
    store = watched(folder, cache)
    there: TokenStore = pickle.loads(pickle.dumps(store))
    assert there.document(0).shape == (400,)
    flip(folder / BIN)
    with pytest.raises(DamagedStoreError):
        store.finish_watching()
    with pytest.raises(DamagedStoreError, match=r"tokens.bin have changed.*; type this"):
        there.document(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked on Unix")
def test_a_forked_worker_hears_of_it_where_nothing_can_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(Watch, "begin", Watch.look)
    folder, nowhere = stored(tmp_path / "s"), tmp_path / "file"
    nowhere.write_text("no folder")
    store = watched(folder, nowhere)
    opened, has_opened = os.pipe()
    damaged, is_damaged = os.pipe()
    worker = os.fork()
    if not worker:
        code = 1  # whatever happens, this copy of the tests ends here
        try:
            store.document(0)
            os.write(has_opened, b"x")
            os.read(damaged, 1)
            store.document(0)
        except DamagedStoreError as error:
            code = 7 if "tokens.bin have changed" in str(error) else 2
        finally:
            os._exit(code)
    os.close(has_opened)
    os.read(opened, 1)
    flip(folder / BIN)
    with pytest.raises(DamagedStoreError):
        store.finish_watching()
    os.write(is_damaged, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 7


def test_of_several_processes_one_compares(tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr(checksums, "_LOOK_EVERY", 0.0)
    folder, cache = stored(tmp_path / "s"), tmp_path / "cache"
    flip(folder / BIN)
    (cache / "locks").mkdir(parents=True)
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:32]
    with FileLock(cache / "locks" / f"{name}-compare.lock"):
        other = settled(watched(folder, cache))
        assert read == [] and other.document(0).shape == (400,)
    store = settled(watched(folder, cache))
    for each in (store, other):
        with pytest.raises(DamagedStoreError, match=r"tokens\.bin"):
            each.document(0)


def test_a_cache_that_cannot_be_written_keeps_nobody_from_looking(tmp_path: Path) -> None:
    folder, nowhere = stored(tmp_path / "s"), tmp_path / "file"
    nowhere.write_text("no folder")
    settled(watched(folder, nowhere)).document(0)
    flip(folder / BIN)
    with pytest.raises(DamagedStoreError, match=r"tokens\.bin"):
        settled(watched(folder, nowhere)).document(0)


def test_a_store_that_was_replaced_meanwhile_is_not_called_damaged(tmp_path: Path) -> None:
    folder, cache = stored(tmp_path / "s"), tmp_path / "cache"
    store = TokenStore.open(folder)

    def compare(rest: Callable[[], None]) -> str:
        shutil.copy(folder / BIN, folder / "new")
        (folder / "new").replace(folder / BIN)
        return "damage"

    Watch(folder, cache, store._stamp, compare, "type this").finish()
    assert not (cache / "checked").exists()


def test_what_was_written_to_meanwhile_is_not_called_whole(tmp_path: Path, read: list[str]) -> None:
    folder, cache = stored(tmp_path / "s"), tmp_path / "cache"
    store = TokenStore.open(folder)
    Watch(folder, cache, store._stamp, lambda rest: os.utime(folder / BIN), "").finish()
    settled(watched(folder, cache))
    assert len(read) == 3


def test_it_works_a_quarter_of_the_time(tmp_path: Path) -> None:
    """What a pass over a file costs the work beside it: as long as a MB takes, three times as long is rested."""
    waited: list[float] = []

    class Event:
        def wait(self, seconds: float) -> bool:
            waited.append(seconds)
            return False

    rest = checksums._Resting(Event())  # type: ignore[arg-type]
    began = time.perf_counter()
    time.sleep(0.02)
    rest()
    worked = time.perf_counter() - began
    assert 0.06 <= waited[0] <= 3 * worked
    file = tmp_path / "f"
    file.write_bytes(bytes(3 << 20))
    calls: list[int] = []
    assert difference(file, hashlib.sha256(bytes(3 << 20)).hexdigest(), None, lambda: calls.append(1)) is None
    assert len(calls) == 3


def test_hurrying_ends_the_rest_and_compares_all(tmp_path: Path, read: list[str]) -> None:
    folder, cache = stored(tmp_path / "s"), tmp_path / "cache"
    store = TokenStore.open(folder)

    def slowly(rest: Callable[[], None]) -> str | None:
        time.sleep(0.05)  # so the thread would rest three times as long
        rest()
        return store._compare(rest)

    store._watch = Watch(folder, cache, store._stamp, slowly, "")
    store._watch.begin()
    store.finish_watching()
    assert len(read) == 3
    assert json.loads(next((cache / "checked").glob("*.json")).read_text())["damage"] is None


@given(
    data=st.binary(min_size=1, max_size=40),
    step=st.integers(1, 50),
    at=st.integers(0, 39),
)
@settings(deadline=None)
def test_every_byte_is_in_a_sum(tmp_path_factory: pytest.TempPathFactory, data: bytes, step: int, at: int) -> None:
    file = tmp_path_factory.mktemp("f") / "f"
    file.write_bytes(data)
    sha = hashlib.sha256(data).hexdigest()
    sums = [zlib.crc32(data[start : start + step]) for start in range(0, len(data), step)]
    chunks = {"bytes": step, "crc32": sums}
    assert difference(file, "", chunks) is difference(file, sha) is None
    flip(file, at % len(data))
    place = at % len(data) // step * step
    assert difference(file, "", chunks) == f"between byte {place:,} and byte {min(place + step, len(data)):,}"
    assert difference(file, sha) == difference(file, sha, {**chunks, "crc32": [*sums, 0]}) == "somewhere in it"


def test_damage_in_the_cache_is_made_good(bpe: TokenizerFiles, tmp_path: Path) -> None:
    """Noticed by the run that reads it; the next one makes the store again."""
    request = Request([Texts(CODE)], bpe)
    made = prepare(request, tmp_path)
    whole = (made.store.folder / BIN).read_bytes()
    flip(made.store.folder / BIN)
    found = prepare(request, tmp_path)
    assert found.was_cached
    with pytest.raises(DamagedStoreError, match=r"tokens.bin have changed.*the same command makes it again"):
        settled(found.store).document(0)
    said: list[str] = []
    again = prepare(request, tmp_path, say=lambda topic, text: said.append(text))
    assert not again.was_cached and (again.store.folder / BIN).read_bytes() == whole
    assert any("tokens.bin have changed" in line and line.endswith("; making it again") for line in said)
    settled(prepare(request, tmp_path).store).document(0)


def test_a_store_named_as_text_is_watched_too(tmp_path: Path) -> None:
    folder, cache = stored(tmp_path / "s"), tmp_path / "cache"
    flip(folder / BIN)
    with pytest.raises(DamagedStoreError, match="prepare it again with --overwrite_cache"):
        settled(open_store(str(folder), cache, 1.0)).document(0)


def test_the_last_line_of_a_traceback_is_the_error() -> None:
    """As torch hands on what a loader's worker raised."""
    caught = (
        "Caught DamagedStoreError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in y\nlmtrain.data.checksums.DamagedStoreError: the store s is damaged; type this\n'
    )
    assert str(DamagedStoreError(caught)) == "the store s is damaged; type this"
