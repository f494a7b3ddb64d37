"""One of two processes is killed: the other ends soon and says why, and both go on to the straight run's bits."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from forked import ranks, run_ranks
from interrupting import logged_losses
from launching import MARKS
from lmtrain.core.errors import ExitCode
from lmtrain.engine.checkpoints.read import newest
from tiny_models import checkpoint

pytestmark = MARKS
STEPS, SAVED_EVERY = 120, 5
SOON = 60  # seconds: a lost connection is noticed at once; what takes time here is a machine with other work


def words(folder: Path, out: str) -> list[str]:
    return (
        f"-m lmtrain clm --model_name_or_path {folder / 'model'} --train_file {folder / 'text.txt'} --block_size 16 "
        f"--use_cpu --max_steps {STEPS} --save_steps {SAVED_EVERY} --logging_steps 1 --eval_strategy steps "
        f"--eval_steps 50 --per_device_train_batch_size 2 --ddp_timeout 600 --attention_dropout 0.1 "
        f"--output_dir {folder / out}"
    ).split()


def environment(folder: Path, **more: object) -> dict[str, str]:
    own = {"LMTRAIN_CACHE": folder / "cache", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}
    return {**os.environ, **{name: str(value) for name, value in own.items()}}


def together(folder: Path, out: str) -> str:
    """What the two say when nobody is killed."""
    ends = run_ranks(words(folder, out), 2, env=environment(folder))
    assert not any(end.returncode for end in ends), [end.stderr for end in ends]
    return ends[0].stderr


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    checkpoint("gpt2", folder / "model")
    (folder / "text.txt").write_text("".join(f"The quick fox number {n} jumps over it.\n" for n in range(120)))
    together(folder, "straight")
    return folder


@pytest.mark.parametrize("killed", [0, 1])
def test_the_other_ends_and_both_go_on(killed: int, straight: Path) -> None:
    folder, out = straight, f"killed-{killed}"
    processes = ranks(words(folder, out), 2, env=environment(folder))
    until, far_enough = time.monotonic() + 300, logged_losses(folder / out, 3 * SAVED_EVERY)
    while not far_enough():
        assert all(process.poll() is None for process in processes), [p.communicate()[1] for p in processes]
        assert time.monotonic() < until, "no step was made"
        time.sleep(0.01)
    processes[killed].send_signal(signal.SIGKILL)
    other = processes[1 - killed]
    said = other.communicate(timeout=SOON)[1]
    processes[killed].communicate()
    assert other.returncode == ExitCode.INTERRUPTED, said
    assert "another process of this run is gone" in said and "Traceback" not in said
    if killed == 1:
        assert "the same command goes on" in said
        assert json.loads((folder / out / "status.json").read_text())["state"] == "interrupted"
    found = newest(folder / out)
    assert found.checkpoint is not None and not found.passed_over and 0 < found.step < STEPS
    assert f"goes on from step {found.step}" in together(folder, out)
    for name in ("model.safetensors", "eval_results.json"):
        ours, theirs = ((folder / run / name).read_bytes() for run in (out, "straight"))
        if name == "eval_results.json":
            ours, theirs = (json.loads(found)["eval_loss"] for found in (ours, theirs))
        assert ours == theirs, name
    last = [(folder / run / f"checkpoint-{STEPS}" / "optimizer.pt").read_bytes() for run in (out, "straight")]
    assert last[0] == last[1]
