"""Processes that prepare together: the store of one, to the byte, whoever runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corpora import CODE, byte_level_bpe
from test_preparing_shards import contents, lines, many_texts, others, request_of, table

from lmtrain.core.errors import UserError
from lmtrain.data.preparing import Making, Request, filling, making, prepare
from lmtrain.data.preparing.workers import count_of
from lmtrain.data.sources import hashing, opening
from lmtrain.data.tokenizer_files import TokenizerFiles


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Every form of text at once."""
    (tmp_path / "corpus").mkdir()
    for make in (many_texts, lines, others, table):
        make(tmp_path / "corpus")
    return tmp_path / "corpus"


def request(corpus: Path, bpe: TokenizerFiles, **making: Any) -> Request:
    return request_of(corpus, bpe, on_bad_record="skip", making=Making(segment_bytes=9000, **making))


def test_two_processes_make_the_store_of_one(
    bpe: TokenizerFiles, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(prepare(request(corpus, bpe), tmp_path / "whole"))
    assert contents(prepare(request(corpus, bpe, workers=1), tmp_path / "one")) == whole
    plain, places = filling.run_parts, list[Path]()

    def watched(*words: Any) -> Any:
        for place, record in plain(*words):
            places.append(place)
            yield place, record

    monkeypatch.setattr(filling, "run_parts", watched)
    made = prepare(request(corpus, bpe, workers=2), tmp_path / "two")
    assert contents(made) == whole
    assert len(set(places)) <= 9 < len(places), "parts are written over those that were handed on"
    assert sorted(path.name for path in made.store.folder.iterdir()) == [
        "documents.bin", "manifest.json", "tokens.bin", "tokens.idx",
    ]  # fmt: skip


def test_hashes_are_those_of_one_thread(
    bpe: TokenizerFiles, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (hashing, opening):
        monkeypatch.setattr(module, "PART", 5000)
    (corpus / "large.txt").write_text(CODE)
    expected = [source.content_hash() for source in request(corpus, bpe).sources]
    in_parts, plain = list[Any](), hashing.sha256_file
    monkeypatch.setattr(
        hashing, "sha256_file", lambda *words: (in_parts.append(threading.current_thread()), plain(*words))[1]
    )
    for workers in (None, 1, 3):
        assert making._hashes(request(corpus, bpe, workers=workers)) == expected
    assert threading.main_thread() not in in_parts


def test_the_command_in_a_process_of_its_own(corpus: Path, tmp_path: Path) -> None:
    """Where nothing runs yet workers are copies of the command's process."""
    tokenizer = byte_level_bpe(tmp_path / "tokenizer")
    (corpus / "large.txt").write_text("".join(f"{number}\n{CODE}" for number in range(80)))
    stores = []
    for workers in ("1", "3"):
        words = ["--train_file", corpus, "--tokenizer_name", tokenizer, "--data_cache_dir", tmp_path / workers]
        more = ["--on_bad_record", "skip", "--preprocessing_num_workers", workers]
        command = [sys.executable, "-m", "lmtrain", "prepare", *words, *more]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert "fastokens proven equal" in done.stderr and "warn" not in done.stderr.lower()
        (store,) = (tmp_path / workers / "stores").iterdir()
        stores.append([(store / name).read_bytes() for name in ("tokens.bin", "tokens.idx", "documents.bin")])
    assert stores[0] == stores[1] and len(stores[0][0]) > 4_000_000


KILLED = """
import os, signal, sys
from lmtrain.cli.main import main
from lmtrain.data.preparing import workers
parent, whole, made = os.getpid(), workers.write_part, []
def killed(place, *others):
    made.append(place)
    if os.getpid() != parent and len(made) == 3:  # it writes over a part of its own or of its parent
        (place / "tokens.bin").write_bytes(b"half a part")
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(place, *others)
workers.write_part = killed
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are no copies of the command's process")
def test_a_worker_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe(tmp_path / "tokenizer")
    (tmp_path / "large.txt").write_text("".join(f"{number}\n{CODE}" for number in range(400)))
    words = ["--train_file", tmp_path / "large.txt", "--tokenizer_name", tokenizer, "--data_cache_dir", tmp_path / "c"]
    command = [sys.executable, "-c", KILLED, "prepare", *words, "--preprocessing_num_workers", "2"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240)
    assert done.returncode == 2 and "was ended from outside, while" in done.stderr, done.stderr
    assert "large.txt or what follows on it was read" in done.stderr
    assert list((tmp_path / "c" / "stores").iterdir()) == []


UNGUARDED = """
import sys, threading
from pathlib import Path
from lmtrain.data.preparing import Making, Request, prepare
from lmtrain.data.sources import Reading, resolve_sources
from lmtrain.data.tokenizer_files import TokenizerFiles
threading.Thread(target=threading.Event().wait, daemon=True).start()  # so workers are no copies of this process
making = Making(workers=2, segment_bytes=9000)
sources = resolve_sources([sys.argv[1]], Reading())
prepare(Request(sources, TokenizerFiles.load(sys.argv[2]), making=making), Path(sys.argv[3]))
"""


def test_a_program_without_a_guard_ends_in_a_line(corpus: Path, tmp_path: Path) -> None:
    """Its workers run it too, and would wait for the lock that it holds while it waits for them."""
    (tmp_path / "program.py").write_text(UNGUARDED)
    words = [tmp_path / "program.py", corpus / "00.txt", byte_level_bpe(tmp_path / "tokenizer"), tmp_path / "cache"]
    (corpus / "00.txt").write_text(CODE * 4)
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "keeps what it runs under if __name__ == '__main__'" in done.stderr.splitlines()[-1]


def test_tasks_of_ray_make_the_store_of_one(
    bpe: TokenizerFiles,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    whole = contents(prepare(request(corpus, bpe), tmp_path / "whole"))
    capfd.readouterr()
    assert contents(prepare(request(corpus, bpe, workers=2, engine="ray"), tmp_path / "ray")) == whole
    assert not ray.is_initialized(), "what was started is ended"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    out, err = capfd.readouterr()
    assert not out and not err, (out, err)


def test_what_a_process_finds_wrong_is_said_as_one_alone_would(
    bpe: TokenizerFiles, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (corpus / "zz.txt").write_bytes(b"a\n" * 9000 + b"\xff\n")
    failing = replace(request(corpus, bpe, workers=2), cut_percentage=0.0)
    with pytest.raises(UserError, match=r"zz.txt:9001: not UTF-8: byte 0xff") as caught:
        prepare(failing, tmp_path / "two")
    assert [problem.flag for problem in caught.value.problems] == ["--train_file"]
    assert list((tmp_path / "two" / "stores").iterdir()) == [], "nothing is left"


def test_without_ray_its_package_is_named(bpe: TokenizerFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--engine: needs the package ray: pip install 'lmtrain\[ray\]'"):
        prepare(request_of(tmp_path, bpe, making=Making(engine="ray")), tmp_path / ".cache")


def test_parts_are_many_and_not_too_small() -> None:
    from lmtrain.data.preparing.plan import Segment, ranges_of

    def parts(sizes: list[int], workers: int) -> list[int]:
        segments = [Segment(0, size) for size in sizes]
        ranges = ranges_of(segments, count_of(segments, workers))
        assert [number for part in ranges for number in part] == list(range(len(sizes)))
        return [sum(sizes[number] for number in part) for part in ranges]

    million = 10**6
    assert max(parts([4 * million] * 50, 2)) <= 8 * million
    assert len(parts([1000] * 2000, 4)) == 1
    assert max(parts([4 * million] * 5000, 2)) <= (64 << 20) + 4 * million
    assert len(parts([10**10, 1, 1], 2)) == 3
