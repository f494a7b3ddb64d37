"""Every write, flush and rename of a save fails in turn: the run and the earlier checkpoints survive each."""

from __future__ import annotations

import builtins
import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from little_run import trainer
from safetensors import SafetensorError
from transformers import TrainerCallback

from lmtrain.core.errors import ExitCode
from lmtrain.engine.checkpoints.manifest import read_manifest
from lmtrain.engine.checkpoints.policy import NoSaveSucceededError, Saving
from lmtrain.engine.checkpoints.read import checkpoints, newest
from lmtrain.engine.trainer import LMTrainer
from tiny import weights
from tiny_models import gpt2_style

STEPS = 2


class Calls:
    """Counts what a save asks of the system, and lets the ``fails``-th of it fail."""

    def __init__(self, fails: int | None, error: int = errno.ENOSPC) -> None:
        self.fails, self.error = fails, error
        self.seen: list[str] = []

    def __call__(self, what: str) -> None:
        self.seen.append(what)
        if len(self.seen) - 1 == self.fails:
            if what == "weights":
                raise SafetensorError(f"I/O error: {os.strerror(self.error)} (os error {self.error})")
            raise OSError(self.error, os.strerror(self.error), what)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, calls: Calls, *, short: bool = False) -> Iterator[None]:
    """The system's functions as a save reaches them: ``os``, ``open``, and the writer of safetensors."""
    import transformers.modeling_utils as modeling

    def counted(name: str, real: Callable[..., Any], told: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls(told)
            if short and told == "write":  # the system may always write less than it was given
                return real(args[0], args[1][: max(1, len(args[1]) // 2)])
            return real(*args, **kwargs)

        return call

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "w" in mode and ".checkpoint-" in str(file):
            calls("open")
        return real_open(file, mode, *args, **kwargs)

    real_open = builtins.open
    with monkeypatch.context() as patch:
        for name, told in (("fsync", "fsync"), ("replace", "rename"), ("write", "write"), ("mkdir", "mkdir")):
            patch.setattr(os, name, counted(name, getattr(os, name), told))
        patch.setattr(builtins, "open", opened)
        patch.setattr(modeling, "safe_save_file", counted("safe_save_file", modeling.safe_save_file, "weights"))
        yield


class During(TrainerCallback):
    """Watch one save: that of the last step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: Calls, **options: Any) -> None:
        self.watching = watched(monkeypatch, calls, **options)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == STEPS:
            self.watching.__enter__()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == STEPS:
            self.watching.__exit__(None, None, None)


def saving_run(folder: Path, during: During | None) -> LMTrainer:
    # In place, so that what fails belongs to one save.
    made = trainer(folder, STEPS, *([during] if during else []), saving=Saving(background="off"))
    made._decided = DECIDED
    return made


DECIDED: dict[str, Any] = {"head": {"choice": "all positions", "reason": "for speed of the test"}}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    made = saving_run(tmp_path_factory.mktemp("straight"), None)
    made.train()
    return weights(made.model)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What one save asks of the system, in order."""
    calls = Calls(None)
    with pytest.MonkeyPatch.context() as patch:
        saving_run(tmp_path_factory.mktemp("counted"), During(patch, calls)).train()
    assert {"fsync", "rename", "write", "mkdir", "open", "weights"} <= set(calls.seen)
    return calls.seen


def test_each_call_of_a_save_may_fail(everything: list[str], straight: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """The run ends, what has a checkpoint's name verifies, and the run resumed from it ends in the same bits."""
    outcomes = [
        _with_failing(number, errno.ENOSPC, everything, straight, tmp_path) for number in range(len(everything))
    ]
    assert outcomes.count(1) > len(outcomes) // 2, "most of them spoil the save"


def test_a_missing_right_is_no_other_matter(
    everything: list[str], straight: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    for what in sorted(set(everything)):
        _with_failing(everything.index(what), errno.EACCES, everything, straight, tmp_path)


_gone_on_from: set[tuple[str, ...]] = set()


def _with_failing(
    number: int, error: int, everything: list[str], straight: dict[str, torch.Tensor], folder: Path
) -> int:
    """The step of the checkpoint that is left when the ``number``-th call fails. Each is gone on from that holds other
    bits than those before."""
    what, folder = everything[number], folder / str(number)
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(number, error)
        made = saving_run(folder, During(patch, calls))
        made.train()
    assert calls.seen[number] == what
    assert made.state.global_step == STEPS
    found = newest(folder)
    assert found.checkpoint is not None and found.passed_over == (), what
    assert found.step == checkpoints(folder)[-1][0] >= STEPS - 1, what
    assert not list(folder.glob(".checkpoint-*.tmp")), what
    files = read_manifest(found.checkpoint)["files"]
    bits = tuple(
        files[name]["sha256"] for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "run_state.json")
    )
    if bits not in _gone_on_from:
        resumed = saving_run(folder, None)
        resumed.train(resume_from_checkpoint=True)
        assert all(torch.equal(value, straight[name]) for name, value in weights(resumed.model).items()), what
        _gone_on_from.add(bits)
    return found.step


def test_a_short_write_is_completed(straight: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        saving_run(tmp_path, During(patch, Calls(None), short=True)).train()
    assert newest(tmp_path).step == STEPS and newest(tmp_path).passed_over == ()
    resumed = saving_run(tmp_path, None)
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(value, straight[name]) for name, value in weights(resumed.model).items())


@pytest.mark.parametrize("background", ["on", "off"])
def test_a_run_stops_when_nothing_can_be_saved_any_more(background: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    made = trainer(tmp_path / "run", 9, saving=Saving(max_failed_saves=3, background=background))
    made.args.output_dir = str(tmp_path / "taken")
    with pytest.raises(NoSaveSucceededError, match="3 saves") as stopped:
        made.train()
    assert stopped.value.exit_code == ExitCode.NO_SAVE_SUCCEEDED
    assert 3 <= made.state.global_step <= 5


def test_a_save_that_succeeds_begins_the_count_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Obstacle(TrainerCallback):
        """A file in the way of every save but each third."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            args.output_dir = str(tmp_path / ("run" if state.global_step % 3 == 0 else "taken"))

    (tmp_path / "taken").write_text("")
    made = trainer(tmp_path / "run", 9, Obstacle(), saving=Saving(max_failed_saves=3, background="off"))
    with caplog.at_level(logging.WARNING):
        made.train()
    assert made.state.global_step == 9
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [3, 6, 9]
    assert "2 of 3 failures in a row" in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's own")
def test_a_tokenizer_that_finds_no_room_is_a_failed_save_like_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its library raises a bare ``Exception``."""
    tokenizer, saves = gpt2_style(), list[str]()
    save = type(tokenizer).save_pretrained

    def second_fails(self: Any, place: str, *args: Any, **kwargs: Any) -> Any:
        saves.append(place)
        if len(saves) == 2:
            self.backend_tokenizer.save("/dev/full")
        return save(self, place, *args, **kwargs)

    monkeypatch.setattr(type(tokenizer), "save_pretrained", second_fails)
    made = trainer(tmp_path, 3, saving=Saving(background="on"))
    made.processing_class = tokenizer
    with caplog.at_level(logging.WARNING):
        made.train()
    assert [step for step, _ in checkpoints(tmp_path)] == [1, 3] and made.state.global_step == 3
    assert "checkpoint-2 could not be saved ([Errno 28] No space left on device)" in caplog.text


FULL_DISK = """
mount -t tmpfs -o size={size}k none {disk} || exit 77
exec {python} {program} {disk}/run
"""


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """Room for two checkpoints and a part of the third: torch's and safetensors' own errors, from the system itself."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from little_run import trainer\n"
        "from lmtrain.engine.checkpoints.policy import NoSaveSucceededError, Saving\n"
        "from lmtrain.engine.checkpoints.read import checkpoints, newest\n"
        "folder = Path(sys.argv[1])\n"
        "made = trainer(folder, 9, saving=Saving(max_failed_saves=3, background='on'))\n"
        "try:\n"
        "    made.train()\n"
        "except NoSaveSucceededError as error:\n"
        "    print('stopped', made.state.global_step, error)\n"
        "print('kept', [step for step, _ in checkpoints(folder)], newest(folder).passed_over)\n"
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    here = Path(__file__).parent
    script = FULL_DISK.format(size=1200, disk=disk, python=sys.executable, program=program)
    paths = os.pathsep.join([str(here), str(here.parent), *sys.path])
    try:
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode and "stopped" not in done.stdout:
        pytest.skip(f"no file system of one's own here: {done.stderr[-200:]}")
    assert "stopped" in done.stdout and "No space left" in done.stdout, done.stdout
    kept = done.stdout.split("kept ")[1].split("]")[0]
    assert kept.startswith("[1"), done.stdout
    assert "()" in done.stdout.split("kept ")[1], "what is there verifies"
