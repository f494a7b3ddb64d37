"""Text on object storage and on a web server: read as local files are, and told apart without reading it."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from lmtrain.core.errors import UserError
from lmtrain.core.types import Tally
from lmtrain.data.remote import places
from lmtrain.data.remote.failures import UnreachableError
from lmtrain.data.remote.places import place_of
from lmtrain.data.sources import Reading, resolve_sources
from lmtrain.data.sources.segments import Part, spans_of
from lmtrain.data.sources.text import passed_over_by
from object_store import BUCKET, KEY_ID, SECRET, Storage, object_storage

TEXTS = [f"line {number} of a text" for number in range(300)]


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    with object_storage() as found:
        yield found


@pytest.fixture(autouse=True)
def _as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "storage" in request.fixturenames:
        found: Storage = request.getfixturevalue("storage")
        found.refuses, found.failing = None, lambda method, path: False


def files() -> dict[str, bytes]:
    lines = "\n".join(json.dumps({"text": text}) for text in TEXTS).encode()
    table = pa.table({"number": range(len(TEXTS)), "text": TEXTS})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet, row_group_size=70)
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    csv = "text\n" + "".join(f'"{text}"\n' for text in TEXTS)
    return {
        "a.jsonl": lines, "b.jsonl.gz": gzip.compress(lines), "c.jsonl.xz": lzma.compress(lines),
        "d.jsonl.zst": zstandard.compress(lines), "e.parquet": parquet.getvalue(), "f.arrow": arrow.getvalue(),
        "g.csv": csv.encode(), "h.parquet.gz": gzip.compress(parquet.getvalue()),
    }  # fmt: skip


def texts(*paths: str, flag: str = "--train_file") -> tuple[list[str], Tally]:
    sources = resolve_sources(paths, Reading(), flag=flag)
    tally = passed_over_by(sources)
    return [piece.text for source in sources for piece in source.pieces(tally)], tally


@pytest.mark.parametrize("name", files())
def test_every_format_and_packing_gives_what_the_local_file_gives(name: str, storage: Storage, tmp_path: Path) -> None:
    address = storage.put(f"formats/{name}", files()[name])
    (tmp_path / name).write_bytes(files()[name])
    assert texts(address)[0] == texts(str(tmp_path / name))[0] == TEXTS


def test_globs_and_folders(storage: Storage) -> None:
    for name in ("one.txt", "sub/two.txt", "sub/.hidden", "three.bin", ".git/x.txt"):
        storage.put(f"tree/{name}", b"\0\1" if name.endswith(".bin") else name.encode())
    found, tally = texts(f"s3://{BUCKET}/tree")
    assert found == ["one.txt", "sub/two.txt"] and tally.skipped["binary file"] == 1
    assert texts(f"s3://{BUCKET}/tree/*.txt")[0] == ["one.txt"]
    some, tally = texts(f"s3://{BUCKET}/tree/*")
    assert some == ["one.txt"] and [note.partition(";")[0] for note in tally.notes] == [
        f"of what 's3://{BUCKET}/tree/*' matches, 1 folder and what is in them are left out"
    ]
    with pytest.raises(UserError, match="matches 1 folder and no file; name a folder itself"):
        texts(f"s3://{BUCKET}/tree/s*")
    assert not texts(f"s3://{BUCKET}/tree/**")[1].notes
    assert texts(f"s3://{BUCKET}/tree/**/t*.txt")[0] == ["sub/two.txt"]
    for typed in (".git", ".git/*.txt"):  # hidden, but asked for
        assert texts(f"s3://{BUCKET}/tree/{typed}")[0] == [".git/x.txt"]


def test_a_text_is_known_again_without_reading_it(storage: Storage) -> None:
    address = storage.put("known.txt", b"as it was\n")
    (first,) = resolve_sources([address], Reading())
    storage.requests.clear()
    before = first.content_hash()
    assert not storage.requests
    (again,) = resolve_sources([address], Reading())
    assert again.content_hash() == before
    storage.put("known.txt", b"as it is!\n")  # as long
    (changed,) = resolve_sources([address], Reading())
    assert changed.content_hash() != before


def test_a_storage_without_marks_is_read_for_its_hash() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/corpus/a.txt", b"hello\n")
    (source,) = resolve_sources(["memory://corpus/a.txt"], Reading())
    assert source.content_hash() == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("s3://{bucket}/none.txt", "is not there"),
        ("s3://no-such-bucket-of-ours/none.txt", "no such bucket"),
        ("s3://{bucket}/none/*.txt", "matches no file"),
        ("s3://{bucket}/bad/cut.jsonl.gz", "the gzip data stop before their end"),
        ("s3://{bucket}/bad/cut.jsonl.zst", "the zstd data stop before their end"),
        ("s3://{bucket}/bad/empty.txt", "is empty"),
        ("s3://{bucket}/bad/picture.txt", "binary file"),
        ("nowhere://a/b", "no storage is called nowhere://"),
        ("https://127.0.0.1:9/a.txt?sig=hushhush", "does not answer"),
        ("ftp://127.0.0.1:9/a.txt", "does not answer"),
        ("https://127.0.0.1:9/folder/?sig=hushhush", "a web server has no folders"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_soon(path: str, says: str, storage: Storage) -> None:
    storage.put("bad/cut.jsonl.gz", files()["b.jsonl.gz"][:-20])
    storage.put("bad/cut.jsonl.zst", files()["d.jsonl.zst"][:-20])
    storage.put("bad/empty.txt", b"")
    storage.put("bad/picture.txt", b"\0\1\2")
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        texts(path.format(bucket=BUCKET))
    said = str(caught.value)
    assert says in said and "hushhush" not in said and "\n" not in said
    assert said.startswith("--train_file: ") and time.monotonic() - began < 15


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "AccessDenied", "ExpiredToken", "SignatureDoesNotMatch"])
def test_refused_credentials_are_never_printed(code: str, storage: Storage) -> None:
    address = storage.put("private.txt", b"secret text\n")
    storage.refuses = code
    with pytest.raises(UserError) as caught:
        texts(address)
    said = str(caught.value)
    assert "the credentials were refused" in said and "AWS_ACCESS_KEY_ID and" in said
    assert KEY_ID not in said and SECRET not in said
    with pytest.raises(UnreachableError) as told:
        place_of(address, None).about()
    assert told.value.__cause__ is None and told.value.__suppress_context__, "nor by a traceback"


def test_no_credentials_at_all(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(UserError, match=r"no credentials were found; set AWS_ACCESS_KEY_ID"):
        texts(f"s3://{BUCKET}/formats/a.jsonl")
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.parametrize(("address", "extra"), [("s3://b/c", "s3"), ("gs://b/c", "gcs"), ("https://h/c", "http")])
def test_a_missing_library_is_named(address: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"pip install 'lmtrain\[{extra}\]'"):
        texts(address)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class _Ranges(_Quiet):
    """Gives the part of a file that is asked for, and says how long a file is only where it is asked to."""

    ranges, lengths = True, True

    def do_HEAD(self) -> None:
        if self.lengths or self.path.endswith("/"):
            super().do_HEAD()
        else:
            self.send_response(200)
            self.end_headers()

    def do_GET(self) -> None:
        span = self.headers.get("Range") if self.ranges else None
        if self.path.endswith("/") or (self.lengths and span is None):
            super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        if span is None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)
            return
        first, _, last = span.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@contextmanager
def web_server(folder: Path, kind: type[SimpleHTTPRequestHandler] = _Quiet) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", ["plain", "ranges", "no lengths"])
def test_every_web_server_gives_every_format(kind: str, tmp_path: Path) -> None:
    """In spans where it gives ranges of bytes, from front to back where it does not."""
    handler: type[_Quiet] = {"plain": _Quiet, "ranges": _Ranges}.get(kind) or type(
        "NoLengths", (_Ranges,), {"ranges": False, "lengths": False}
    )
    for name, data in files().items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    with web_server(tmp_path, handler) as place:
        for name in files():
            assert texts(f"{place}/{name}")[0] == TEXTS, name
        for name in ("a.jsonl", "e.parquet", "t.txt"):
            (source,) = resolve_sources([f"{place}/{name}"], Reading())
            spans = spans_of(source, 2000)
            assert bool(spans) == (kind == "ranges"), name
            parts = [part for span, _ in spans if (part := Part.of(source, span))]
            pieces = [piece.text for part in parts or [source] for piece in part.pieces(Tally())]
            assert "".join(pieces).split() == " ".join(TEXTS).split() if name == "t.txt" else pieces == TEXTS
        found, tally = texts(f"{place}/*.jsonl")
        assert found == TEXTS and tally.bytes_read == (0 if kind == "no lengths" else len(files()["a.jsonl"]))
        assert texts(f"{place}/*.txt")[0] == ["\n".join(TEXTS)]


def test_a_text_of_unknown_length_is_not_read_in_one_go(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    unknown = type("NoLengths", (_Ranges,), {"ranges": False, "lengths": False})
    with web_server(tmp_path, unknown) as place:
        (source,) = resolve_sources([f"{place}/t.txt"], Reading(piece_bytes=1000))
        pieces = [piece.text for piece in source.pieces(Tally())]
    assert "".join(pieces) == "\n".join(TEXTS) and max(map(len, pieces)) <= 2000


def test_a_web_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    for name in ("a.jsonl", "d.jsonl.zst", "e.parquet"):
        (tmp_path / name).write_bytes(files()[name])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        place = f"http://127.0.0.1:{server.server_port}"
        for name in ("a.jsonl", "d.jsonl.zst"):
            assert texts(f"{place}/{name}?sig=hushhush")[0] == TEXTS
        (source,) = resolve_sources([f"{place}/a.jsonl?sig=hushhush"], Reading())
        assert source.name == f"{place}/a.jsonl?…" and len(source.content_hash()) == 64
        with pytest.raises(UserError, match="is not there"):
            texts(f"{place}/none.txt")
    finally:
        server.shutdown()
        server.server_close()


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    began, over = time.monotonic(), threading.Event()
    with pytest.raises(UnreachableError, match=r"s3://b/c did not answer within 0\.1 s"):
        places.in_time(lambda: over.wait(60), "s3://b/c", None, seconds=0.1)
    assert time.monotonic() - began < 30
    over.set()
