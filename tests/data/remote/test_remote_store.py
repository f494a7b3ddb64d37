"""A token store on object storage: what a local one gives, within its bound, whatever the server does."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from corpora import byte_level_bpe
from fsspec.implementations.memory import MemoryFileSystem

from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode, UserError
from lmtrain.data import store_writer
from lmtrain.data.layouts import Blocks, Lines, Windows
from lmtrain.data.ready import open_store
from lmtrain.data.remote import retrying
from lmtrain.data.remote.failures import UnreachableError, explain
from lmtrain.data.remote.store import RemoteStore, open_remote_store
from lmtrain.data.remote.upload import require_writable, upload_store
from lmtrain.data.sources import Reading, resolve_sources
from lmtrain.data.sources.stores import StoreSource
from lmtrain.data.store import BIN, DOCUMENTS, IDX, MANIFEST, DamagedStoreError, TokenStore
from lmtrain.data.store_writer import StoreWriter
from lmtrain.engine.batches.ordering import Ordering, Upcoming
from lmtrain.engine.batches.sampling import EpochOrder
from lmtrain.engine.batches.windows import InWindows
from object_store import BUCKET, Storage, object_storage

CHUNK = 2048  # bytes: 1,024 tokens
BOUND = 12 * CHUNK


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    with object_storage() as found:
        yield found


@pytest.fixture(autouse=True)
def _anew(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retrying, "PATIENCE", 4.0)
    storage.requests.clear()
    yield
    storage.refuses, storage.failing = None, lambda method, path: False


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """79 chunks of tokens, in documents of 1 to 400."""
    folder = tmp_path_factory.mktemp("store")
    random = np.random.default_rng(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store_writer, "CHUNK_BYTES", CHUNK)
        with StoreWriter(folder, 50_000) as writer:
            for _ in range(400):
                length = int(random.integers(1, 400))
                ids = random.integers(0, 50_000, length).astype(np.uint32)
                writer.append(ids, np.array([0, length]), [True], [3 * length], [length])
            writer.finish({"key": "k", "sources": [], "tokenizer": {}, "reading": {}, "cut": None, "ledger": {}})
    return TokenStore.open(folder)


@pytest.fixture
def address(storage: Storage, local: TokenStore) -> str:
    return storage.put_folder(local.folder, "store")


def opened(address: str, cache: Path, bound: int = BOUND) -> RemoteStore:
    return open_remote_store(address, cache, bound, "--train_file")


def on_disk(cache: Path) -> int:
    return sum(file.stat().st_size for file in (cache / "remote").rglob("*.chunk"))


def test_layouts_read_it_as_a_local_one(address: str, local: TokenStore, tmp_path: Path) -> None:
    far = opened(address, tmp_path)
    assert len(far.manifest["chunks"]["crc32"]) == -(-local.tokens.nbytes // CHUNK) > 2 * BOUND // CHUNK
    assert np.array_equal(far.tokens[:], local.tokens) and np.array_equal(far.lengths, local.lengths)
    numbers = np.random.default_rng(0).integers(0, len(local.tokens), 300)
    assert np.array_equal(far.tokens[numbers], local.tokens[numbers]) and not len(far.tokens[7:7])
    assert np.array_equal(far.tokens[5000:], local.tokens[5000:]) and far.tokens.dtype == local.tokens.dtype
    documents = np.arange(20, len(local))
    for layout in (
        lambda store: Blocks(store, documents, 100, (1,), (2,)), lambda store: Windows(store, documents, 40, (1,)),
        lambda store: Lines(store, documents, 50, (1,), (2,)),
    ):  # fmt: skip
        here, there = layout(local), layout(far)
        chosen = np.random.default_rng(2).permutation(len(here))[:50].tolist()
        assert np.array_equal(here.__getitems__(chosen).ids, there.__getitems__(chosen).ids)
        assert here.ledger == there.ledger
        first = here.first_tokens
        assert len(first) == len(here) and (np.diff(first) >= 0).all()
        plain = [int(np.argmin(row.special)) for row in [here.__getitems__([n]) for n in chosen[:9]] for row in [row]]
        ids = [here.__getitems__([n]).ids[0, at] for n, at in zip(chosen, plain, strict=False)]
        assert ids == [local.tokens[first[n]] for n in chosen[:9]], "an example begins at its first token"
    assert on_disk(tmp_path) <= BOUND


class _Private(MemoryFileSystem):  # type: ignore[misc]
    """In place of the hub's: shows nothing without the token."""

    protocol = "hf"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def __init__(self, token: str | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._may = token == "hf_opens"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("hf://").strip("/")

    def info(self, path: str, **settings: Any) -> Any:
        self._ask(path)
        return super().info(path, **settings)

    def cat_file(self, path: str, **settings: Any) -> Any:
        self._ask(path)
        return super().cat_file(path, **settings)

    def _ask(self, path: str) -> None:
        if not self._may:
            raise PermissionError(f"401 Unauthorized: {path}")


def test_a_private_store_of_the_hub_is_read_with_its_token(
    local: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setattr(fsspec, "get_filesystem_class", lambda _: _Private)
    writable = _Private(token="hf_opens")
    for file in local.folder.iterdir():
        writable.pipe_file(f"/datasets/me/private/{file.name}", file.read_bytes())
    (source,) = resolve_sources(["hf://datasets/me/private"], Reading(), token="hf_opens")
    assert isinstance(source, StoreSource) and "hf_opens" not in repr(source)
    far = open_store(source.place, tmp_path, BOUND / 1e9, source.flag, source.token)
    assert isinstance(far, RemoteStore) and np.array_equal(far.tokens[:3000], local.tokens[:3000])
    assert "hf_opens" not in repr(far.tokens.place)
    again = pickle.loads(pickle.dumps(far))  # as a loader's worker has it
    assert np.array_equal(again.tokens[3000:5000], local.tokens[3000:5000])
    again.tokens._process = -1  # as a forked one finds it
    assert np.array_equal(again.tokens[-3000:], local.tokens[-3000:])
    with pytest.raises(UserError, match="the credentials were refused"):
        open_store(source.place, tmp_path, BOUND / 1e9, source.flag)


def test_the_cache_never_exceeds_its_bound(address: str, local: TokenStore, tmp_path: Path) -> None:
    far = opened(address, tmp_path)
    most, ends = [0], threading.Event()

    def watch() -> None:
        while not ends.is_set():
            found = 0
            for file in (tmp_path / "remote").rglob("*"):
                if file.suffix in (".chunk", ".new"):
                    with suppress(FileNotFoundError):
                        found += file.stat().st_size
            most[0] = max(most[0], found)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for chunk in np.random.default_rng(3).permutation(len(local.tokens) * 2 // CHUNK).tolist():
            far.tokens.expect([chunk + 1, chunk + 2] if chunk < 60 else [])
            at = chunk * CHUNK // 2
            assert np.array_equal(far.tokens[at : at + 100], local.tokens[at : at + 100])
    finally:
        far.tokens.close()
        ends.set()
        watcher.join()
    assert 0 < most[0] <= BOUND and on_disk(tmp_path) <= BOUND


def test_of_several_that_open_it_at_once_one_fetches_the_index(
    address: str, local: TokenStore, storage: Storage, tmp_path: Path
) -> None:
    """As the processes of a machine do when a training begins."""

    def slowly(method: str, path: str) -> bool:
        time.sleep(0.2 * (method == "GET" and path.endswith(IDX)))
        return False

    storage.failing = slowly
    with ThreadPoolExecutor(4) as executor:
        stores = list(executor.map(lambda _: opened(address, tmp_path), range(4)))
    assert all(np.array_equal(store.lengths, local.lengths) for store in stores)
    read = [path.rpartition("/")[2] for method, path, _ in storage.requests if method == "GET"]
    assert read.count(IDX) == read.count(DOCUMENTS) == 1 and read.count(MANIFEST) == 4


def test_a_bound_of_less_than_a_few_chunks_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--data_cache_gb: .* hold fewer than 4 chunks"):
        opened(address, tmp_path, 3 * CHUNK)


def test_windows_are_read_once_and_ahead(address: str, local: TokenStore, storage: Storage, tmp_path: Path) -> None:
    far = opened(address, tmp_path, 32 * CHUNK)
    layout = Blocks(far, np.arange(len(far)), 64)
    windows = InWindows.of(layout.first_tokens, CHUNK // 2, 8 * CHUNK // 2, 8)
    assert windows is not None
    ordering = Ordering(windows, {}, far.tokens, layout.first_tokens, layout.lengths)
    sampler = EpochOrder(len(layout), 0, windows=windows, upcoming=Upcoming(ordering, batch=4))
    here = Blocks(local, np.arange(len(local)), 64)
    for example in sampler:
        assert np.array_equal(layout[example]["input_ids"], here[example]["input_ids"])
    far.tokens.close()
    chunks = len(far.manifest["chunks"]["crc32"])
    # A chunk in which a window ends is part of two windows and may have gone meanwhile, of the next one at most.
    assert chunks <= len(storage.of_tokens()) <= 1.3 * chunks


def test_what_is_left_of_an_earlier_process_is_used_if_it_is_whole(
    address: str, local: TokenStore, storage: Storage, tmp_path: Path
) -> None:
    opened(address, tmp_path).tokens[:3000]
    storage.requests.clear()
    assert np.array_equal(opened(address, tmp_path).tokens[:3000], local.tokens[:3000]) and not storage.of_tokens()
    spoiled = next((tmp_path / "remote").rglob("1.chunk"))
    spoiled.write_bytes(bytes(CHUNK))
    assert np.array_equal(opened(address, tmp_path).tokens[:3000], local.tokens[:3000])
    assert storage.of_tokens() == [f"bytes={CHUNK}-{2 * CHUNK - 1}"]


def test_a_chunk_that_was_cut_short_is_fetched_again(address: str, local: TokenStore, tmp_path: Path) -> None:
    """While it is in use, and by an earlier process; with checksums and without, as older stores are."""
    for crc32 in (None, ()):
        far = opened(address, tmp_path)
        far.tokens._crc32 = far.tokens._crc32 if crc32 is None else crc32
        for _ in range(2):
            assert np.array_equal(far.tokens[1024:2048], local.tokens[1024:2048])
            chunk = next((tmp_path / "remote").rglob("1.chunk"))
            chunk.write_bytes(chunk.read_bytes()[:100])


def test_spoiled_bytes_are_noticed(local: TokenStore, storage: Storage, tmp_path: Path) -> None:
    address = storage.put_folder(local.folder, "spoiled")
    data = bytearray((local.folder / BIN).read_bytes())
    data[3 * CHUNK + 5] ^= 1
    storage.put("spoiled/tokens.bin", bytes(data))
    far = opened(address, tmp_path)
    assert np.array_equal(far.tokens[: 3 * CHUNK // 2], local.tokens[: 3 * CHUNK // 2])
    with pytest.raises(DamagedStoreError, match=r"tokens.bin: bytes 6,144 to 8,192 are not what was written there"):
        far.tokens[3 * CHUNK // 2 :]


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("tokens.bin", lambda data: data[:-2], "instead of"),
        ("tokens.idx", lambda data: data[:40] + b"\xff\xff" + data[42:], "is not what was written there"),
        ("manifest.json", lambda data: data[:50], "cannot be read"),
        ("manifest.json", lambda data: data.replace(b'"files"', b'"others"'), "cannot be read"),
        ("manifest.json", lambda data: data.replace(b'"format": 1', b'"format": 99'), "format 99"),
    ],
)
def test_damage_is_seen_on_opening(
    name: str, change: Any, says: str, local: TokenStore, storage: Storage, tmp_path: Path
) -> None:
    address = storage.put_folder(local.folder, "damaged")
    storage.put(f"damaged/{name}", change((local.folder / name).read_bytes()))
    with pytest.raises(DamagedStoreError, match=says):
        opened(address, tmp_path)


def test_a_server_that_is_away_for_a_moment_is_waited_for(
    address: str, local: TokenStore, storage: Storage, tmp_path: Path
) -> None:
    far, left = opened(address, tmp_path), [3]

    def fails(method: str, path: str) -> bool:
        left[0] -= path.endswith(BIN)
        return path.endswith(BIN) and left[0] >= 0

    storage.failing = fails
    assert np.array_equal(far.tokens[:500], local.tokens[:500])
    storage.failing = lambda method, path: True
    with pytest.raises(UnreachableError, match="does not answer"):
        far.tokens[9000:9500]
    assert np.array_equal(far.tokens[:500], local.tokens[:500]), "what is here can still be read"


def test_hours_of_work_before_a_failure_take_no_patience() -> None:
    """An upload of many parts, of which a late one fails."""
    now, answers = [0.0], iter([ConnectionError("reset"), ConnectionError("reset"), None])

    def upload() -> str:
        now[0] += 5000
        if error := next(answers):
            raise error
        return "done"

    def pause(seconds: float) -> None:
        now[0] += seconds

    def asked(patience: float) -> str:
        return retrying.patiently(upload, "s3://b/c", patience=patience, clock=lambda: now[0], pause=pause)

    with pytest.raises(UnreachableError):
        asked(0)
    assert asked(60) == "done"


@pytest.mark.parametrize("path", ["b/403/x", "b/Connect4/Offline.txt", "b/resolve/429", "bucket/does/not"])
def test_what_a_path_is_called_is_no_reason(path: str) -> None:
    error = explain(FileNotFoundError(path), f"s3://{path}", "--train_file")
    assert not isinstance(error, UnreachableError) and "is not there" in str(error)


def test_expired_credentials_are_not_tried_again(address: str, storage: Storage, tmp_path: Path) -> None:
    far = opened(address, tmp_path)
    storage.requests.clear()
    storage.refuses = "ExpiredToken"
    with pytest.raises(UnreachableError, match="the credentials were refused"):
        far.tokens[:500]
    assert len(storage.of_tokens()) <= 2


def _reads(far: RemoteStore, queue: Any) -> None:
    queue.put(far.tokens[4000:4100].tolist())


def test_a_loaders_worker_reads_it_too(address: str, local: TokenStore, tmp_path: Path) -> None:
    far = opened(address, tmp_path)
    far.tokens.expect([0])
    assert far.tokens[0:10].tolist() == local.tokens[0:10].tolist()
    again = pickle.loads(pickle.dumps(far))
    assert isinstance(again, RemoteStore) and again.tokens[:9].tolist() == local.tokens[:9].tolist()
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    worker = fork.Process(target=_reads, args=(far, queue))
    worker.start()
    assert queue.get(timeout=60) == local.tokens[4000:4100].tolist()
    worker.join(60)


# ---- uploading ---------------------------------------------------------------------------------------


def test_a_store_appears_whole(local: TokenStore, storage: Storage, tmp_path: Path) -> None:
    address = f"s3://{BUCKET}/uploaded"
    require_writable(address)
    assert not storage.names("uploaded"), "what was tried was removed"
    storage.failing = lambda method, path: method == "PUT" and path.endswith("documents.bin")
    with pytest.raises(UnreachableError):
        upload_store(local.folder, address)
    assert storage.names("uploaded") == ["uploaded/tokens.bin", "uploaded/tokens.idx"]
    with pytest.raises(UserError, match="is not there"):
        opened(address, tmp_path)
    storage.failing = lambda method, path: False
    require_writable(address)
    assert upload_store(local.folder, address) and not upload_store(local.folder, address)
    written = [path for method, path, _ in storage.requests if method == "PUT" and "uploaded/" in path]
    assert written[-1].endswith(MANIFEST)
    assert np.array_equal(opened(address, tmp_path).tokens[:], local.tokens)


def test_nothing_foreign_is_written_over(local: TokenStore, storage: Storage) -> None:
    storage.put("foreign/thesis.pdf", b"years of work")
    with pytest.raises(UserError, match=r"--output_dir: .*holds something that is no token store \(thesis.pdf\)"):
        require_writable(f"s3://{BUCKET}/foreign")
    address = storage.put_folder(local.folder, "other")
    manifest = (local.folder / MANIFEST).read_bytes().replace(b'"key": "k"', b'"key": "another"')
    storage.put("other/manifest.json", manifest)
    with pytest.raises(UserError, match=r"the store of another text.*--overwrite_cache"):
        upload_store(local.folder, address)
    assert upload_store(local.folder, address, overwrite=True)
    assert storage.get("other/manifest.json") == (local.folder / MANIFEST).read_bytes()


def test_a_bucket_may_be_called_bucket(local: TokenStore, storage: Storage, tmp_path: Path) -> None:
    """The libraries name what is missing by its path alone."""
    storage.client.create_bucket(Bucket="my-bucket")
    address = "s3://my-bucket/new/store"
    require_writable(address)
    assert upload_store(local.folder, address)
    assert np.array_equal(opened(address, tmp_path).tokens[:9], local.tokens[:9])
    with pytest.raises(UserError, match=r"--output_dir: s3://no-such-one.*there is no such bucket"):
        require_writable("s3://no-such-one/store")


def test_the_hubs_token_is_used_for_writing_too(
    local: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setattr(fsspec, "get_filesystem_class", lambda _: _Private)
    (tmp_path / "a.txt").write_text("some text\n" * 50)
    words = ["prepare", "--train_file", tmp_path / "a.txt", "--tokenizer_name", byte_level_bpe(tmp_path / "tokenizer")]
    words += ["--data_cache_dir", tmp_path / "cache", "--output_dir", "hf://datasets/me/made"]
    assert main([*map(str, words)]) == ExitCode.WRONG_INPUT
    assert main([*map(str, words), "--token", "hf_opens"]) == 0
    assert _Private(token="hf_opens").exists("/datasets/me/made/manifest.json")


def test_no_right_to_write_is_said_before_the_work(storage: Storage) -> None:
    storage.refuses = "AccessDenied"
    with pytest.raises(UnreachableError, match=r"--output_dir: .*the credentials were refused"):
        require_writable(f"s3://{BUCKET}/mine")
