"""The log of a process: what stands in it, what does not, and what the terminal shows."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from lmtrain.core import ranklog
from lmtrain.core.console import note, say
from lmtrain.core.errors import Interrupted, Lost, UserError
from lmtrain.core.ranklog import failures, listening, remove_others
from lmtrain.core.secrets import without_keys

FAILS = """
import logging, warnings
from pathlib import Path
from lmtrain.core.console import say
from lmtrain.core.ranklog import listening

with listening(on_each_node=False) as log:
    logging.getLogger("lmtrain.somewhere").warning("before the folder")
    log.open(Path("run"), {"device": "cpu"})
    logging.getLogger("lmtrain.somewhere").warning("behind it")
    logging.getLogger("lmtrain.somewhere").error("what all must know")
    warnings.warn("old way")
    say("store", "a line")
    raise ValueError("no such row\\nand more")
"""


def process(
    folder: Path, rank: int, world: int = 2, code: str = FAILS, **more: str
) -> subprocess.CompletedProcess[str]:
    own = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": "0", **more}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a run whose two processes failed, one after the other, and what each said."""
    folder = tmp_path_factory.mktemp("failed")
    return folder / "run", [process(folder, rank).stderr for rank in (0, 1)]


def test_each_process_has_its_own_log(failed: tuple[Path, list[str]]) -> None:
    run, _ = failed
    assert sorted(path.name for path in (run / "logs").iterdir()) == ["rank-0.log", "rank-1.log"]
    for rank in (0, 1):
        lines = (run / "logs" / f"rank-{rank}.log").read_text().splitlines()
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  ==== start: rank \d of 2, host .+", lines[0])
        assert f"rank {rank} of 2" in lines[0] and "pid" in lines[0] and "device cpu" in lines[0]
        text = "\n".join(lines)
        for said in ("warning: lmtrain.somewhere: before the folder", "behind it", "UserWarning: old way",
                     "store      a line", "Traceback", "ValueError: no such row"):  # fmt: skip
            assert text.count(said) == 1 or said == "ValueError: no such row", said
        assert lines[-1].endswith(f"==== failed: rank {rank} on {ranklog.host()}: ValueError: no such row")


def test_only_the_first_speaks_but_errors_are_everybodys(failed: tuple[Path, list[str]]) -> None:
    first, second = failed[1]
    for said in ("before the folder", "behind it", "old way", "● store      a line", "what all must know"):
        assert said in first, said
    assert "Traceback" in first and second.count("Traceback") == 1, "by Python itself here"
    assert second.startswith("what all must know\n")
    assert f"rank 1 on {ranklog.host()} failed: ValueError: no such row; see run/logs/rank-1.log" in second
    for said in ("before the folder", "behind it", "old way", "a line"):
        assert said not in second, said


def test_the_first_names_who_failed(failed: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = failed
    monkeypatch.setenv("RANK", "0")
    (line,) = failures(run, time.time() - 60)
    assert line == f"rank 1 on {ranklog.host()} failed: ValueError: no such row; see logs/rank-1.log"
    assert failures(run, time.time() + 60) == [], "what failed before this start is no news"
    began = time.monotonic()
    assert failures(run.parent / "another", 0.0, patience=0.3) == [] and time.monotonic() - began >= 0.3


def test_a_process_that_started_again_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="bad"), listening() as log:
        log.open(tmp_path, {})
        raise ValueError("bad")
    monkeypatch.setenv("RANK", "7")
    assert failures(tmp_path, 0.0) == [f"rank 0 on {ranklog.host()} failed: ValueError: bad; see logs/rank-0.log"]
    monkeypatch.setenv("RANK", "0")
    with listening() as log:
        log.open(tmp_path, {})
    monkeypatch.setenv("RANK", "7")
    assert failures(tmp_path, 0.0) == []
    text = (tmp_path / "logs" / "rank-0.log").read_text()
    assert text.count("==== start: ") == 2 and text.count("==== failed: ") == 1 and text.endswith("==== end\n")


def test_who_was_interrupted_is_named_where_that_is_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one whose data cannot be read any more; not those that only missed it."""
    ends = {1: Interrupted("the store does not answer"), 2: Lost(f"{Lost.SAID}: connection closed")}
    for rank, error in ends.items():
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(Interrupted), listening() as log:
            log.open(tmp_path, {})
            raise error
    monkeypatch.setenv("RANK", "0")
    line = f"rank 1 on {ranklog.host()} was interrupted: the store does not answer; see logs/rank-1.log"
    assert failures(tmp_path, 0.0, interrupted=True) == [line]
    assert failures(tmp_path, 0.0) == [], "a signal reaches all of them"


def test_several_per_machine_and_the_first_of_each(tmp_path: Path) -> None:
    code = FAILS.replace("on_each_node=False", "on_each_node=True")
    assert "behind it" in process(tmp_path, 2, 4, code).stderr, "the first on its machine"
    assert "behind it" not in process(tmp_path, 3, 4, code, LOCAL_RANK="1").stderr


def test_what_a_user_can_mend_has_no_traceback(tmp_path: Path) -> None:
    for error, word in (
        (UserError("no such file", flag="--train_file"), "failed"),
        (Interrupted("SIGTERM"), "interrupted"),
    ):
        with pytest.raises(type(error)), listening() as log:
            log.open(tmp_path, {})
            raise error
        text = (tmp_path / "logs" / "rank-0.log").read_text()
        assert "Traceback" not in text
        assert text.rstrip().endswith(f"==== {word}: rank 0 on {ranklog.host()}: {error}")


def test_no_folder_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError), listening():
        say("store", "a line")
        raise UserError("no such file")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with listening() as log:
        log.open(tmp_path, {})
        note("a line")
    assert (tmp_path / "logs").read_text() == "a file where the folder should be"


@pytest.mark.parametrize("link", ["logs", "logs/rank-0.log"])
def test_links_are_not_followed(link: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rank-0.log").write_text("precious")
    (tmp_path / "run" / "logs").parent.mkdir()
    place = tmp_path / "run" / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(tmp_path / "mine" if link == "logs" else tmp_path / "mine" / "rank-0.log")
    with listening() as log:
        log.open(tmp_path / "run", {}, anew=True)
        note("a line")
    assert (tmp_path / "mine" / "rank-0.log").read_text() == "precious"


def test_two_processes_never_write_into_one_file(tmp_path: Path) -> None:
    """A second run of the same rank, say of a launcher that numbers nobody, finds the name taken."""
    if sys.platform == "win32":
        pytest.skip("files are not locked there")
    with listening() as log:
        log.open(tmp_path / "run", {})
        process(tmp_path, 0)
        note("mine")
    names = sorted(path.name for path in (tmp_path / "run" / "logs").iterdir())
    assert len(names) == 2 and names[0].startswith("rank-0.") and names[1] == "rank-0.log"
    assert "ValueError" not in (tmp_path / "run" / "logs" / "rank-0.log").read_text()


def test_a_run_made_anew_empties_its_logs(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    for anew in (False, True):
        with listening() as log:
            log.open(tmp_path, {}, anew=anew)
            note("second" if anew else "first")
    assert "first" not in (logs / "rank-0.log").read_text() and "second" in (logs / "rank-0.log").read_text()
    for name in ("rank-3.log", "rank-0.123.log", "other.log"):
        (logs / name).touch()
    remove_others(tmp_path)
    assert sorted(path.name for path in logs.iterdir()) == ["other.log", "rank-0.log"]


def test_keys_do_not_stand_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/bPxRfiCY")
    with pytest.raises(OSError, match="refused"), listening() as log:
        log.open(tmp_path, {})
        note("asked s3://me:hush-hush@host/bucket")
        logging.getLogger("lmtrain").warning("with wJalrXUtnFEMI/bPxRfiCY")
        raise OSError("refused with hf_abcdefghijklmnopqrstuvwx")
    text = (tmp_path / "logs" / "rank-0.log").read_text()
    for secret in ("hush-hush", "wJalrXUtnFEMI", "abcdefghijklmnop"):
        assert secret not in text
    assert "s3://...@host/bucket" in text and "refused with hf_..." in text


def test_everything_is_put_back(tmp_path: Path) -> None:
    root, before = logging.getLogger(), warnings.showwarning
    handlers, libraries = list(root.handlers), list(logging.getLogger("transformers").handlers)
    with listening() as log, listening() as inner:
        assert inner is log, "one log for the whole of it"
        log.open(tmp_path, {})
    assert root.handlers == handlers and logging.getLogger("transformers").handlers == libraries
    assert warnings.showwarning is before
    note("nobody listens")
    assert "nobody listens" not in (tmp_path / "logs" / "rank-0.log").read_text()


def test_a_crash_in_a_library_leaves_the_lines_that_led_there(tmp_path: Path) -> None:
    code = FAILS[: FAILS.index("raise")] + "import ctypes; ctypes.string_at(0)"
    assert process(tmp_path, 1, code=code).returncode < 0
    text = (tmp_path / "run" / "logs" / "rank-1.log").read_text()
    assert "Fatal Python error" in text and "string_at" in text


INTERRUPTED = """
import signal, sys
from pathlib import Path
from lmtrain.core.console import say
from lmtrain.core.ranklog import listening
with listening() as log:
    log.open(Path(sys.argv[1]), {})
    signal.signal(signal.SIGALRM, lambda *_: say("signal", "meanwhile"))
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    for number in range(5000):
        say("line", f"number {number}")
    signal.setitimer(signal.ITIMER_REAL, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="timers that send signals are Unix's")
def test_a_signal_may_be_answered_in_the_middle_of_a_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (log,) = (tmp_path / "logs").iterdir()
    for text in (done.stderr, log.read_text()):
        assert [int(number) for number in re.findall(r"number (\d+)", text)] == list(range(5000))
        assert text.count("meanwhile") > 20
    assert len(re.findall(r"^\S+ \S+  line +number \d+$", log.read_text(), flags=re.M)) == 5000


def test_what_opens_doors_is_taken_out() -> None:
    signed = "got 403 for 'https://host/a.txt?X-Amz-Signature=12ab&x=1' by sk-abcdefghijklmnopqrstuv"
    assert without_keys(signed, {}) == "got 403 for 'https://host/a.txt?...' by sk-..."
    assert without_keys("see https://host/page?page=2", {}) == "see https://host/page?page=2"
