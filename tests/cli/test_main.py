"""``lmtrain``: exit codes, what goes where, and that our own faults look like our own."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from lmtrain.__main__ import main as started
from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode, UserError


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., int]], None]:
    """Let ``lmtrain demo`` run a function of the test: the command itself takes minutes."""

    def use(run: Callable[..., int]) -> None:
        module = types.ModuleType("lmtrain.cli.demo")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "lmtrain.cli.demo", module)

    return use


def test_a_command_gets_its_options_and_its_code_is_returned(demo: Callable[..., None]) -> None:
    seen = []
    demo(lambda options: seen.append(options) or 7)
    assert main(["demo", "--minutes", "0.5"]) == 7
    assert seen[0].minutes == 0.5 and seen[0].vocab_size == 8192


def test_a_mistake_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clm", "--lerning_rate", "1"]) == ExitCode.WRONG_INPUT
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    assert captured.err.startswith("lmtrain clm: ")
    assert "--lerning_rate         no such option; did you mean --learning_rate?" in captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prpare"], "did you mean lmtrain prepare?"),
        (["tok"], "did you mean lmtrain tokenizer?"),
        (["to"], "there are clm, mlm, sft"),
        (["xyzzy"], "there are clm, mlm, sft"),
        (["train", "--train_file", "a"], "three train: lmtrain clm on text"),
        (["--train_file", "a"], "a command comes before --train_file"),
        (["nlg", "scores", "--json"], "'nlg scores' is no command; did you mean lmtrain nlg score?"),
        (["nlg", "e2ee"], "'e2ee' is not one of e2e, webnlg, dart"),
    ],
)
def test_unknown_commands(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == ExitCode.WRONG_INPUT
    assert said in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    from lmtrain import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lmtrain {__version__}\n"
    for words in (["--help"], ["-h"], ["help"]):
        assert main(words) == 0
        assert "usage: lmtrain COMMAND" in capsys.readouterr().out
    for words in (["clm", "--help"], ["help", "clm"], ["clm", "--lerning_rate", "1", "-h"], ["clm", "-h", "all"]):
        assert main(words) == 0
        assert "usage: lmtrain clm" in capsys.readouterr().out
    assert main(["clm", "--help", "patience"]) == 0
    found = capsys.readouterr().out
    assert found.startswith("Run\n  --early_stopping_patience N") and "usage" not in found
    for words, said in ((["clm", "-h", "xyzzy"], "has 'xyzzy' in its name"), ([], "usage: lmtrain COMMAND")):
        assert main(words) == ExitCode.WRONG_INPUT
        captured = capsys.readouterr()
        assert captured.out == "" and said in captured.err


TASK = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_JOB_NODELIST": "node[1-2]"}


@pytest.mark.parametrize(
    ("launched", "speaks"),
    [
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "1", "LOCAL_RANK": "1"}, False),
        ({"RANK": "8", "LOCAL_RANK": "0"}, True),  # on another machine, where a file may be missing
        ({**TASK, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, True),
        ({**TASK, "SLURM_PROCID": "9", "SLURM_LOCALID": "1"}, False),
    ],
)
def test_under_a_launcher_one_process_of_a_machine_complains(
    launched: dict[str, str], speaks: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # and is put back, whatever the command makes of SLURM's words
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    assert main(["clm", "--lerning_rate", "1"]) == ExitCode.WRONG_INPUT
    assert ("--lerning_rate" in capsys.readouterr().err) == speaks


@pytest.mark.parametrize("command", ["demo", "nlg demo", "nlg decode", "gpt2-ft", "verify-resume clm"])
def test_what_works_in_one_process_is_not_started_in_several(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(command.split()) == ExitCode.WRONG_INPUT
    assert "works in one process, and 2 were started" in capsys.readouterr().err


def test_a_fault_of_ours_shows_where_and_asks_for_a_report(
    demo: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: object) -> int:
        raise ZeroDivisionError("our fault")

    demo(run)
    assert main(["demo"]) == ExitCode.OUR_FAULT
    err = capsys.readouterr().err
    assert "ZeroDivisionError: our fault" in err and "Please report the lines above" in err


@pytest.mark.parametrize(
    ("number", "code", "first"),
    [(errno.ENOSPC, ExitCode.NO_SAVE_SUCCEEDED, "make room"), (errno.EACCES, ExitCode.WRONG_INPUT, "allow it")],
)
def test_what_the_system_refuses_is_no_fault_of_ours(
    demo: Callable[..., None], capsys: pytest.CaptureFixture[str], number: int, code: int, first: str
) -> None:
    def run(options: object) -> int:
        raise OSError(number, os.strerror(number), "/data/x")

    demo(run)
    assert main(["demo"]) == code
    told = f"lmtrain demo: {os.strerror(number)} (/data/x): {first}, then type the same command again"
    assert capsys.readouterr().err.strip() == told


def test_an_error_of_a_stage_uses_its_own_code(demo: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    class NoSaveError(UserError):
        exit_code = ExitCode.NO_SAVE_SUCCEEDED

    def run(options: object) -> int:
        raise NoSaveError("the disk is full")

    demo(run)
    assert main(["demo"]) == ExitCode.NO_SAVE_SUCCEEDED
    said = capsys.readouterr().err
    assert "the disk is full" in said and "before this can go on" in said


def test_an_interruption(
    demo: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(options: object) -> int:
        raise KeyboardInterrupt

    demo(run)
    assert main(["demo"]) == ExitCode.INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err
    with monkeypatch.context() as patch:  # while it is found out which command it is
        patch.setattr("lmtrain.cli.main._name_of", run)
        assert main(["demo"]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "\nlmtrain: interrupted\n"
    # ... and while the first modules are imported
    monkeypatch.setattr("builtins.__import__", _interrupted_at("lmtrain.cli", __import__))
    assert started() == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "\nlmtrain: interrupted\n"


def _interrupted_at(module: str, find: Callable[..., object]) -> Callable[..., object]:
    def imported(name: str, *rest: object) -> object:
        if name == module:
            raise KeyboardInterrupt
        return find(name, *rest)

    return imported


def test_notes_go_to_standard_error_and_variables_are_set(
    demo: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "before")
    module = types.ModuleType("lmtrain.cli.training")
    seen = []
    module.run = lambda options: seen.append(os.environ["TENSORBOARD_LOGGING_DIR"]) or 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lmtrain.cli.training", module)
    text = tmp_path / "a.txt"
    text.write_text("text", encoding="utf-8")
    words = ["--model_name_or_path", "m", "--train_file", str(text), "--output_dir", str(tmp_path / "run")]
    assert main(["clm", *words, "--logging_dir", "tb"]) == 0
    assert seen == ["tb"]
    captured = capsys.readouterr()
    assert captured.out == "" and "TENSORBOARD_LOGGING_DIR" in captured.err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently there")
def test_a_reader_that_goes_away_is_no_fault() -> None:
    """``lmtrain clm --help | head -1``, with a reader that is gone before the first word."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lmtrain", "clm", "--help"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
@pytest.mark.parametrize(
    ("words", "code"),
    [("--version >&-", 0), ("--version 2>&-", 0), ("tokenizer --train_file - --output_dir none <&-", 2)],
)
def test_a_closed_stream_is_an_empty_one(words: str, code: int, tmp_path: Path) -> None:
    line = f"{sys.executable} -m lmtrain {words}"
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr


def test_what_a_terminal_has_no_letter_for_ends_nothing() -> None:
    """√ in a help, é in a text of a model: where the output is not UTF-8, by the locale or by the user's wish."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "lmtrain", "clm", "--help", "rslora"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "\\u221arank" in done.stdout, done.stderr
    code = 'from lmtrain.cli.main import _write_whatever_it_is as it; it(); print(\'{"a": "\\xe9\\U0001f600"}\')'
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"a": "\xe9\U0001f600"}, "records stay JSON"


def test_the_script_of_a_job_hears_that_srun_starts_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"PROCID": "0", "LOCALID": "0", "NTASKS": "16", "JOB_NODELIST": "node[1-2]"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    module = types.ModuleType("lmtrain.cli.training")
    module.run = lambda options: int(os.environ.get("WORLD_SIZE", "1"))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lmtrain.cli.training", module)
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    words = ["--model_name_or_path", "m", "--train_file", str(tmp_path / "a.txt"), "--output_dir", str(tmp_path / "o")]
    assert main(["clm", *words]) == 1, "one process"
    assert "the job has 16 tasks, and this is one process by itself" in capsys.readouterr().err


def test_under_mpirun_no_process_trains_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert main(["clm", "--train_file", "t"]) == ExitCode.WRONG_INPUT
    assert "mpirun started 3 processes, and nothing tells them where they meet" in capsys.readouterr().err
