"""Two runs compared to the bit, and the command that makes them: one straight, one killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from forked import Forked
from lmtrain.cli.main import main
from lmtrain.cli.verify_resume import table
from lmtrain.rehearsal import verify_resume
from lmtrain.rehearsal.run_comparison import Row, compare_logged, compare_tensors
from lmtrain.rehearsal.verify_resume import Verdict, compare_runs, kill
from no_room import meanwhile
from tiny_models import TEXT, checkpoint

STEPS = 4


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("verify")
    (place / "text.txt").write_text("\n".join(TEXT * 20))
    model = checkpoint("gpt2", place / "model")
    return f"clm --model_name_or_path {model} --train_file {place / 'text.txt'} --block_size 16"


@pytest.fixture(scope="module")
def run(command: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A finished run of :data:`STEPS` steps in this process."""
    made: dict[int, Path] = {}

    def make(seed: int) -> Path:
        if seed not in made:
            made[seed] = tmp_path_factory.mktemp("run") / "out"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LMTRAIN_CACHE", str(made[seed].parent / "cache"))
                patch.setenv("HF_HUB_OFFLINE", "1")
                words = f"--max_steps {STEPS} --save_steps 2 --logging_steps 1 --seed {seed} --output_dir {made[seed]}"
                assert main(f"{command} {words}".split()) == 0
        return made[seed]

    return make


def test_equal_runs_and_unequal_ones(run: Callable[..., Path], tmp_path: Path) -> None:
    rows = compare_runs(run(1), run(1), STEPS)
    named = ["losses", "learning rates", "gradient norms", "tokens read", "evaluation losses", "final weights",
             "optimizer state"]  # fmt: skip
    assert [row.what for row in rows] == named and all(row.difference is None for row in rows)
    other = {row.what: row.difference for row in compare_runs(run(1), run(2), STEPS)}
    for what in ("losses", "gradient norms", "final weights", "optimizer state"):
        assert other[what], what
    assert other["learning rates"] is None, "the schedule is that of both"
    assert other["losses"].startswith("step 1: ")  # type: ignore[union-attr]
    verdict = Verdict(tuple(compare_runs(run(1), run(2), STEPS)), STEPS, 3, 2)
    assert not verdict.is_equal and verdict.as_dict()["equal"] is False
    assert "NOT the same run" in table(verdict)[-1] and any(str(other["losses"]) in line for line in table(verdict))


def test_each_record_of_a_step_counts_and_none_may_be_missing() -> None:
    def told(*pairs: tuple[int, float]) -> list[dict[str, object]]:
        return [{"event": "train", "step": step, "loss": loss} for step, loss in pairs]

    straight = told((1, 0.5), (2, 0.25), (3, 0.125))
    twice = told((1, 0.5), (2, 0.25), (2, 0.25), (3, 0.125))
    assert compare_logged("loss", "train", straight, twice) == Row("losses", "3 steps", None)
    unlike = compare_logged("loss", "train", straight, told((1, 0.5), (2, 0.3), (2, 0.25), (3, 0.125)))
    assert unlike == Row("losses", "3 steps", "step 2: 0.25 and 0.3")
    short = compare_logged("loss", "train", straight, told((1, 0.5), (2, 0.25)))
    assert short == Row("losses", "3 steps", "step 3: 0.125 and nothing")
    assert compare_logged("eval_loss", "evaluation", straight, twice) is None


def test_tensors_to_the_bit() -> None:
    one: dict[str, Any] = {
        "a": torch.tensor([1.0, 0.0, float("nan")]),
        "b": torch.arange(3, dtype=torch.bfloat16),
        "n": 2,
    }
    copied = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in one.items()}
    assert compare_tensors("w", one, copied) == Row("w", "6 numbers", None)
    minus = {**one, "a": torch.tensor([1.0, -0.0, float("nan")])}
    assert compare_tensors("w", one, minus).difference == "a: 1 of 3 numbers, the first 0.0 and -0.0"
    least = {**one, "b": torch.tensor([0, 1, 2.015625], dtype=torch.bfloat16)}
    assert compare_tensors("w", one, least).difference == "b: 1 of 3 numbers, the first 2.0 and 2.015625"
    assert "bfloat16" in str(compare_tensors("w", one, {**one, "b": torch.arange(3.0)}).difference)
    assert compare_tensors("w", one, {"a": one["a"], "n": 2}).difference == "b: only in the straight run"
    assert compare_tensors("w", one, {**one, "n": 3}).difference == "n: 2 and 3"


def test_what_is_killed_is_gone_with_its_own() -> None:
    script = (
        "import subprocess,sys,time; p = subprocess.Popen(['sleep', '60']); print('there', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    began = time.monotonic()
    process.stdout.readline()
    kill(process)
    assert process.returncode == -9
    process.stdout.read()  # ends when nobody can write any more
    process.stdout.close()
    assert time.monotonic() - began < 30, "the child has ended before its time"
    kill(process)  # once more does nothing


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--steps 3 --save_at 3", "--save_at"),
        ("--steps 1", "--steps"),
        ("--max_steps x", "--max_steps"),
        ("--save_only_model", "--save_only_model"),
    ],
)
def test_what_cannot_be_verified(command: str, words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"verify-resume {command} {words}".split()) == 2
    assert said in capsys.readouterr().err


# The group that is killed is its own. With a fault where WRONG is set: dropout that depends on the process, as it would
# if it came from a generator that nobody saved.
_RUN = """
import os, sys
os.setsid()
from lmtrain.cli.main import main
from lmtrain.engine.trainer import seeding
derive = seeding.derive
if "WRONG" in os.environ:
    seeding.derive = lambda seed, *of: derive(seed + os.getpid(), *of)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def runs_are_forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not the point that runs are processes of Python that import everything."""
    (tmp_path / "run.py").write_text(_RUN)

    def start(words: list[str], *, stdout: Any, env: dict[str, str], **_: Any) -> Forked:
        assert words[1:3] == ["-m", "lmtrain"]
        return Forked([tmp_path / "run.py", *words[3:]], env=env, said=Path(stdout.name))

    monkeypatch.setattr(verify_resume, "subprocess", SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL))
    own = {"LMTRAIN_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("runs_are_forks")
def test_a_run_that_fails_shows_its_own_words(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"verify-resume {command.replace('--block_size 16', '--block_size 4096')}".split()) == 2
    said = capsys.readouterr().err
    assert "--block_size" in said


@pytest.mark.usefixtures("runs_are_forks")
def test_asked_to_stop_it_leaves_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    made = SimpleNamespace(TemporaryDirectory=partial(tempfile.TemporaryDirectory, dir=scratch))
    monkeypatch.setattr(verify_resume, "tempfile", made)
    started = list[Forked]()
    start = verify_resume.subprocess.Popen
    monkeypatch.setattr(
        verify_resume.subprocess, "Popen", lambda *a, **k: started.append(start(*a, **k)) or started[-1]
    )
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # which would end the tests
    try:
        runs = (lambda: any(scratch.glob("*/straight/run.json")), lambda: os.kill(os.getpid(), signal.SIGTERM))
        with meanwhile(*runs):
            code = main(f"verify-resume {command} --steps 500 --skip_check".split())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 75 and "interrupted (SIGTERM); the same command begins anew" in capsys.readouterr().err
    assert list(scratch.iterdir()) == [] and started[0].poll() == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_run_is_the_straight_one(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With dropout and accumulation; nothing is left behind."""
    scratch, cache = tmp_path / "scratch", tmp_path / "cache"
    scratch.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name, value in {"LMTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
                        "PYTHONPATH": os.pathsep.join(sys.path)}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    words = f"{command} --dropout 0.1 --gradient_accumulation_steps 2 --per_device_train_batch_size 2 --report_to all"
    assert main(f"verify-resume {words} --steps 8 --save_at 2 --json".split()) == 0
    verdict = json.loads(capfd.readouterr().out)
    assert verdict["equal"] and verdict["steps"] == 8
    assert 2 <= verdict["resumed_from"] < 8 and verdict["killed_after"] >= verdict["resumed_from"]
    extents = {row["what"]: row["extent"] for row in verdict["rows"]}
    assert extents["losses"] == "8 steps" and extents["final weights"].endswith("numbers")
    assert "optimizer state" in extents
    left = [path.name for path in tmp_path.rglob("*") if "lmtrain-verify" in path.name or path.name == "unwritten"]
    assert left == []


@pytest.mark.usefixtures("runs_are_forks")
def test_a_fault_of_resuming_is_noticed(
    command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WRONG", "1")
    assert main(f"verify-resume {command} --dropout 0.1 --steps 10 --skip_check".split()) == 1
    shown = capfd.readouterr().out
    assert "NOT the same run" in shown
    unlike = {line[:20].strip() for line in shown.splitlines() if "step 1: " in line or "the first" in line}
    assert unlike == {"losses", "gradient norms", "final weights", "optimizer state"}
