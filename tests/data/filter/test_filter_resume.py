"""Stopped anywhere, by a signal or ``kill -9``, the same command goes on and leaves the same bytes."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
from filter_corpora import KEYWORDS, code, contents, run, write

from lmtrain.core.errors import ExitCode, Interrupted, UserError
from lmtrain.data.filter import meter
from lmtrain.data.filter.segment import Job, Segment
from lmtrain.data.filter.tasks import Task

FILTERING = Path(__file__).with_name("filtering.py")
RULE = ["--text_column", "content", "--keep_any", ",".join([*KEYWORDS, "self"]), "--shard_bytes", "100000"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 1.5 MB, a third of it duplicates."""
    records = code(2400, words=60)
    again = random.Random(1).choices(records, k=1200)
    return write(tmp_path_factory.mktemp("corpus") / "a.jsonl", records + again)


def start(*words: Any, seconds_a_segment: float | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(FILTERING), "filter", *map(str, words)]
    slow = {} if seconds_a_segment is None else {"SECONDS_A_SEGMENT": str(seconds_a_segment)}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **slow})


def wait_for_progress(out: Path, child: subprocess.Popen[bytes], before: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Until the state on disk is further than ``before``: (task, segment)."""
    until = time.monotonic() + 60
    while time.monotonic() < until and child.poll() is None:
        state = out / ".filter" / "state.json"
        if state.is_file():
            value = json.loads(state.read_text())
            if (at := (value["task"], value["segment"])) > before:
                return at
        time.sleep(0.005)
    return before


@pytest.mark.slow
@pytest.mark.parametrize(("form", "processes", "deduplicate"), [("jsonl.zst", 1, "near"), ("parquet", 2, "exact")])
def test_killed_again_and_again(tmp_path: Path, corpus: Path, form: str, processes: int, deduplicate: str) -> None:
    words = ["--source", corpus, *RULE, "--format", form, "--deduplicate", deduplicate]
    straight = run(*words, "--output", tmp_path / "straight")
    out, chance, kills, at = tmp_path / "killed", random.Random(processes), 0, (0, 0)
    while True:
        child = start(*words, "--output", out, "--num_proc", processes)
        if kills < 3:
            at = wait_for_progress(out, child, at)
            time.sleep(chance.uniform(0, 0.1))
            family = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
            child.kill()
            _, left = psutil.wait_procs(family, timeout=20)
            assert not left, "reading processes end with the one that writes"
        _, said = child.communicate(timeout=120)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, said.decode()
        kills += 1
    assert kills >= 2, "it was too fast to be killed"
    assert contents(out) == contents(tmp_path / "straight") and len(contents(out)) > 2
    report = json.loads((out / ".filter" / "report.json").read_text())
    for key in ("seen", "kept", "dropped", "found", "duplicates", "shards"):
        assert report[key] == straight[key], key
    assert {path.name for path in (out / ".filter").iterdir()} == {"lock", "state.json", "report.json"}


@pytest.mark.slow
def test_a_signal_is_answered_with_75(tmp_path: Path, corpus: Path) -> None:
    words = ["--source", corpus, *RULE, "--deduplicate", "near"]
    run(*words, "--output", tmp_path / "straight")
    child = start(*words, "--output", tmp_path / "out", "--num_proc", 2)
    assert wait_for_progress(tmp_path / "out", child) > (0, 0)
    family = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == ExitCode.INTERRUPTED, said.decode()
    assert b"the same command goes on" in said and not psutil.wait_procs(family, timeout=20)[1]
    child = start(*words, "--output", tmp_path / "out", "--num_proc", 2)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 0 and b"goes on behind" in said
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def packed(folder: Path) -> tuple[Path, Path]:
    """Two files of some twenty segments: a task each."""
    one, other = (write(folder / f"{n}.jsonl.gz", code(900, seed=n)) for n in (1, 2))
    return one, other


def test_packed_files_in_two_processes_are_let_go_in_their_middle(tmp_path: Path) -> None:
    """At two seconds a segment who waited for the end of a file would wait for 40 seconds."""
    words = ["--source", *packed(tmp_path), *RULE, "--deduplicate", "exact", "--output"]
    straight = run(*words, tmp_path / "straight")
    out = tmp_path / "out"
    for number, code_ in ((signal.SIGTERM, ExitCode.INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)):
        child = start(*words, out, "--num_proc", 2, seconds_a_segment=2)
        until = time.monotonic() + 60
        while not (out / ".filter" / "state.json").is_file() or len(family := psutil.Process(child.pid).children()) < 2:
            assert time.monotonic() < until and child.poll() is None
            time.sleep(0.01)
        time.sleep(0.3)  # in the middle
        asked = time.monotonic()
        child.send_signal(number)
        _, said = child.communicate(timeout=120)
        assert child.returncode == code_, said.decode()
        assert not psutil.wait_procs(family, timeout=30)[1] and time.monotonic() - asked < 30
    report = run(*words, out, "--num_proc", 2)
    assert contents(out) == contents(tmp_path / "straight") and report["kept"] == straight["kept"]
    assert {path.name for path in (out / ".filter").iterdir()} == {"lock", "state.json", "report.json"}


def test_what_was_done_of_a_packed_file_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--source", packed(tmp_path)[0], *RULE, "--deduplicate", "exact", "--output"]
    straight, plain = run(*words, tmp_path / "straight"), meter.segments_of

    def stopped(task: Task, job: Job) -> Iterator[Segment]:
        yield from islice(plain(task, job), 5)
        raise Interrupted("now")

    with monkeypatch.context() as patched:
        patched.setattr(meter, "segments_of", stopped)
        with pytest.raises(Interrupted):
            run(*words, tmp_path / "out")
    state = json.loads((tmp_path / "out" / ".filter" / "state.json").read_text())
    assert (state["task"], state["segment"]) == (0, 5)
    report = run(*words, tmp_path / "out")
    assert all(report[name] == straight[name] for name in ("seen", "kept", "dropped"))
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_what_is_wrong_in_one_file_is_said_while_another_is_read(tmp_path: Path) -> None:
    one, other = packed(tmp_path)
    lines = gzip.decompress(other.read_bytes()).splitlines(keepends=True)
    lines[110] = b'{"content": "self"\n'
    other.write_bytes(gzip.compress(b"".join(lines)))
    began = time.monotonic()
    child = start("--source", one, other, *RULE, "--output", tmp_path / "out", "--num_proc", 2, seconds_a_segment=2)
    _, said = child.communicate(timeout=120)
    assert child.returncode == ExitCode.WRONG_INPUT and b"2.jsonl.gz:111: broken JSON" in said
    assert time.monotonic() - began < 35, "the first file alone takes 44 seconds"


def unfinished(tmp_path: Path, corpus: Path) -> Path:
    """An output that was begun."""
    child = start("--source", corpus, *RULE, "--output", tmp_path / "out", "--num_proc", 1)
    wait_for_progress(tmp_path / "out", child)
    child.kill()
    child.communicate()
    return tmp_path / "out"


def test_other_rules_and_other_files_are_refused_by_name(tmp_path: Path, corpus: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(corpus.read_bytes())
    out = unfinished(tmp_path, source)
    with pytest.raises(UserError, match=r"begun with other options: --keep_any \(then pandas,.*, now pandas\)"):
        run(
            "--source",
            source,
            "--text_column",
            "content",
            "--keep_any",
            "pandas",
            "--shard_bytes",
            100000,
            "--output",
            out,
        )
    with source.open("ab") as stream:
        stream.write(b'{"content": "pandas"}\n')
    with pytest.raises(UserError, match=r"begun from other files: .*a\.jsonl changed since"):
        run("--source", source, *RULE, "--output", out)
    report = run("--source", source, *RULE, "--output", out, "--overwrite")
    assert report["seen"]["documents"] == 3601


def test_two_at_once_are_kept_apart(tmp_path: Path, corpus: Path) -> None:
    child = start("--source", corpus, *RULE, "--output", tmp_path / "out", "--num_proc", 1, "--deduplicate", "near")
    try:
        assert wait_for_progress(tmp_path / "out", child) > (0, 0)
        with pytest.raises(UserError, match="another lmtrain filter writes to"):
            run("--source", corpus, *RULE, "--output", tmp_path / "out")
    finally:
        child.kill()
        child.communicate()


def test_what_the_state_tells_of_is_on_disk(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every moment at which the state is saved, whatever it was that was to be noted."""
    from lmtrain.data.filter import run as running
    from lmtrain.data.filter.packing import Packer
    from lmtrain.data.filter.state import State

    folder, plain, pack, seen = tmp_path / "out" / ".filter", State.save, Packer.add, [0]

    def save(self: State, where: Path) -> None:
        assert (folder / f"spool-{len(self.shards):05d}").stat().st_size >= self.bytes
        assert (folder / "duplicates" / "repeated.bin").stat().st_size >= 4 * self.removed
        assert (folder / "duplicates" / "digests.bin").stat().st_size >= 16 * self.total.kept.documents
        seen[0] += 1
        plain(self, where)

    def packed_at_once(self: Any, shard: Any) -> None:
        pack(self, shard)
        self._waiting[-1][1].result()

    monkeypatch.setattr(State, "save", save)
    monkeypatch.setattr(Packer, "add", packed_at_once)
    monkeypatch.setattr(running, "_CHECKPOINT", 0.0)
    report = run("--source", corpus, *RULE, "--output", tmp_path / "out", "--deduplicate", "exact")
    assert report["dropped"]["exact duplicate"]["documents"] > 100 and seen[0] > 20


def test_files_shorter_than_the_state_says_are_not_filled_up(tmp_path: Path, corpus: Path) -> None:
    out = unfinished(tmp_path, corpus)
    state = out / ".filter" / "state.json"
    value = json.loads(state.read_text())
    value["bytes"] += 10**9
    state.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"spool-\d+ has [\d,]+ bytes, and [\d,]+ were written .* begin anew"):
        run("--source", corpus, *RULE, "--output", out)
    assert run("--source", corpus, *RULE, "--output", out, "--overwrite")["kept"]["documents"] > 0


def test_a_full_disk_is_one_line(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmtrain.data.filter import shards

    def full(self: Any, payload: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.Spool, "write", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device; once that is mended"):
        run("--source", corpus, *RULE, "--output", tmp_path / "out")
    monkeypatch.undo()
    assert run("--source", corpus, *RULE, "--output", tmp_path / "out")["kept"]["documents"] > 0
