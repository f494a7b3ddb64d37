"""The token store: what was written is read back, and what was damaged is noticed."""

from __future__ import annotations

import errno
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtrain.core.errors import UserError
from lmtrain.data import store as module
from lmtrain.data import store_writer
from lmtrain.data.store import (
    BIN,
    DOCUMENTS,
    IDX,
    MANIFEST,
    DamagedStoreError,
    TokenStore,
    token_dtype,
)
from lmtrain.data.store_writer import DocumentWriter, StoreWriter

Piece = tuple[list[int], bool]  # ids, whether it begins a document


def write(folder: Path, batches: list[list[Piece]], n_ids: int = 1000) -> TokenStore:
    """Write pieces; the "text" of a piece is its ids as bytes, so that its checksum can be computed again."""
    folder.mkdir(parents=True, exist_ok=True)
    crc = 0
    with StoreWriter(folder, n_ids) as writer:
        for batch in batches:
            crcs = []
            for ids, first in batch:
                crc = zlib.crc32(bytes(i % 256 for i in ids), 0 if first else crc)
                crcs.append(crc)
            lengths = [len(ids) for ids, _ in batch]
            writer.append(
                np.array([i for ids, _ in batch for i in ids], np.uint32),
                np.concatenate([[0], np.cumsum(lengths)]),
                [first for _, first in batch],
                lengths,
                crcs,
            )
        writer.finish({"key": "k", "sources": []})
    return TokenStore.open(folder)


@given(
    pieces=st.lists(st.tuples(st.lists(st.integers(0, 999), max_size=5), st.booleans()), max_size=30),
    sizes=st.lists(st.integers(1, 6), min_size=30, max_size=30),
)
@settings(max_examples=80, deadline=None)
def test_documents_come_back_whatever_the_pieces_and_batches(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[Piece], sizes: list[int]
) -> None:
    pieces = [(ids, first or number == 0) for number, (ids, first) in enumerate(pieces)]
    batches = []
    rest = list(pieces)
    for size in sizes:
        if rest:
            batches.append(rest[:size])
            rest = rest[size:]
    store = write(tmp_path_factory.mktemp("store"), batches)
    documents: list[list[int]] = []
    for ids, first in pieces:
        documents += [[]] if first else []
        documents[-1] += ids
    assert [store.document(i).tolist() for i in range(len(store))] == documents
    assert store.lengths.tolist() == [len(d) for d in documents] == store.n_bytes.tolist()
    assert store.crc32.tolist() == [zlib.crc32(bytes(i % 256 for i in d)) for d in documents]
    assert store.manifest["tokens"] == sum(map(len, documents)) == len(store.tokens)
    assert store.manifest["longest_document"] == max(map(len, documents), default=0)


def test_the_index_is_megatrons(tmp_path: Path) -> None:
    """Read with struct alone, as megatron/core/datasets/indexed_dataset.py lays it out."""
    write(tmp_path, [[([5, 6, 7], True), ([], True)], [([9], True)]])
    data = (tmp_path / IDX).read_bytes()
    assert data[:9] == b"MMIDIDX\x00\x00"
    assert struct.unpack_from("<QBQQ", data, 9) == (1, 8, 3, 4)
    assert struct.unpack_from("<3i", data, 34) == (3, 0, 1)
    assert struct.unpack_from("<3q", data, 46) == (0, 6, 6)
    assert struct.unpack_from("<4q", data, 70) == (0, 1, 2, 3)
    assert len(data) == 102
    assert struct.unpack("<4H", (tmp_path / BIN).read_bytes()) == (5, 6, 7, 9)


def test_ids_take_two_bytes_as_long_as_they_fit(tmp_path: Path) -> None:
    assert token_dtype(65_536) == np.uint16 and token_dtype(65_537) == np.int32
    narrow = write(tmp_path / "narrow", [[([65_535], True)]], n_ids=65_536)
    wide = write(tmp_path / "wide", [[([65_536], True)]], n_ids=65_537)
    assert narrow.document(0).tolist() == [65_535] and narrow.tokens.nbytes == 2
    assert wide.document(0).tolist() == [65_536] and wide.tokens.nbytes == 4
    assert struct.unpack_from("<B", (tmp_path / "wide" / IDX).read_bytes(), 17) == (4,)


def test_an_id_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="id 1000 in a vocabulary of 1000"):
        write(tmp_path, [[([1000], True)]])


def test_a_store_travels_as_its_path(tmp_path: Path) -> None:
    store = write(tmp_path, [[(list(range(900)), True)]])
    message = pickle.dumps(store)
    assert len(message) < 600
    assert pickle.loads(message).document(0).tolist() == list(range(900))


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def contradict(file: Path) -> None:
    file.write_text(file.read_text().replace('"tokens": 4', '"tokens": 5'))


def spoil_header(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[17] = 4
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        (BIN, shorten, "bytes instead of"),
        (IDX, shorten, "bytes instead of"),
        (DOCUMENTS, shorten, "bytes instead of"),
        (BIN, Path.unlink, "missing"),
        (DOCUMENTS, Path.unlink, "missing"),
        (MANIFEST, Path.unlink, "no token store"),
        (MANIFEST, shorten, "cannot be read"),
        (MANIFEST, lambda file: file.write_text('{"format": 99}'), "format 99"),
        (MANIFEST, lambda file: file.write_text('{"format": 1}'), "cannot be read"),
        (MANIFEST, lambda file: file.write_text("[]"), "cannot be read"),
        (MANIFEST, contradict, "cannot be read"),
        (IDX, spoil_header, "header"),
        (BIN, flip, "tokens.bin have changed"),
        (IDX, flip, "tokens.idx have changed"),
        (DOCUMENTS, flip, "documents.bin have changed"),
    ],
)
def test_damage_is_seen_on_opening(tmp_path: Path, name: str, damage: Callable[[Path], None], says: str) -> None:
    write(tmp_path, [[([5, 6, 7], True)], [([9], True)]])
    damage(tmp_path / name)
    if name == MANIFEST and damage is shorten:
        shorten(tmp_path / name)  # the first byte lost is only the line break
    with pytest.raises(DamagedStoreError, match=says) as caught:
        TokenStore.open(tmp_path)
    assert isinstance(caught.value, UserError)


def test_pointers_past_the_end_are_seen_on_opening(tmp_path: Path) -> None:
    write(tmp_path, [[([5, 6, 7], True)], [([9], True)]])
    data = bytearray((tmp_path / IDX).read_bytes())
    struct.pack_into("<i", data, 38, 7)  # the last document's length
    (tmp_path / IDX).write_bytes(data)
    with pytest.raises(DamagedStoreError, match="past the end"):
        TokenStore.open(tmp_path)


def test_a_small_disk_is_noticed_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs about 100\.0 TB"):
        module.require_space(tmp_path, 10**14, "the token store")
    module.require_space(tmp_path, 1, "the token store")


def test_a_folder_without_the_right_to_write_is_one_line(tmp_path: Path) -> None:
    for number, name in ((errno.EACCES, "x"), (errno.EROFS, "x"), (errno.EACCES, None)):
        error = OSError(number, "refused", name)
        with pytest.raises((UserError, OSError)) as caught, module.explaining_disks(tmp_path, "--output_dir"):
            raise error
        expected = f"--output_dir: {tmp_path} cannot be written (refused)" if name else str(error)
        assert str(caught.value) == expected, "without a name it is about something else than files"


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with (
        pytest.raises(UserError, match=f"disk of {tmp_path} is full"),
        module.explaining_disks(tmp_path),
        full.open("wb", buffering=0) as stream,
    ):
        stream.write(b"x")
    with pytest.raises(FileNotFoundError), module.explaining_disks(tmp_path):
        (tmp_path / "nothing").open()


def test_a_flush_that_fails_beside_the_work_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system says it once, to the first who asks."""
    failures = iter([OSError(errno.ENOSPC, "No space left on device")])

    def fails_once(_: int) -> None:
        if error := next(failures, None):
            raise error

    monkeypatch.setattr(store_writer, "_FLUSHED_EVERY", 8)
    monkeypatch.setattr(os, "fsync", fails_once)
    with pytest.raises(UserError, match=f"disk of {tmp_path} is full"), module.explaining_disks(tmp_path):
        write(tmp_path / "store", [[([1] * 9, True)]] * 2)
    write(tmp_path / "again", [[([1] * 9, True)]] * 2)  # whole, or opening it would say so


def test_a_part_over_a_longer_one_is_that_of_a_new_folder(tmp_path: Path) -> None:
    def part(folder: Path, documents: int) -> list[bytes]:
        folder.mkdir(exist_ok=True)
        with DocumentWriter(folder, 1000, continues=True) as writer:
            ends = np.arange(0, 3 * documents + 1, 3)
            writer.append(np.arange(3 * documents), ends, [True] * documents, [3] * documents, [7] * documents)
            writer.end()
        return [file.read_bytes() for file in sorted(folder.iterdir())]

    long = part(tmp_path / "used", 9)
    assert part(tmp_path / "used", 2) == part(tmp_path / "new", 2) != long
    assert part(tmp_path / "used", 9) == long
