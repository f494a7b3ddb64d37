"""Preparation that takes longer than ``--ddp_timeout``: nobody is left waiting in an exchange, and nobody dies.

What is slow is real: a process that holds the lock of the store, as one does that prepares it.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from test_killed_rank import environment

from forked import Forked
from launching import MARKS
from lmtrain.cli.main import main
from tiny_models import checkpoint

pytestmark = MARKS
Process = Forked | subprocess.Popen[bytes]
WAITING, READY = "another process is preparing this text; waiting for it", "tokens, prepared before"
TIMEOUT = 3  # seconds that an exchange may take


def words(folder: Path, out: str) -> list[str]:
    return (
        f"clm --model_name_or_path {folder / 'model'} --train_file {folder / 'text.txt'} --block_size 16 --use_cpu "
        f"--max_steps 4 --save_strategy no --ddp_timeout {TIMEOUT} --output_dir {folder / out}"
    ).split()


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A folder with model, text and, in ``cache``, their stores; and the key of the training text's."""
    checkpoint("gpt2", tmp_path / "model")
    (tmp_path / "text.txt").write_text("".join(f"The quick fox number {n} jumps over it.\n" for n in range(120)))
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["clm", *words(tmp_path, "alone")[1:]]) == 0
    (store,) = (tmp_path / "cache" / "stores").iterdir()
    return tmp_path, store.name


def start(folder: Path, name: str, *launcher: str, **more: object) -> Process:
    """What it says goes to the file ``name``, which can be looked at meanwhile."""
    if not launcher:
        return Forked(["-m", "lmtrain", *words(folder, "out")], said=folder / name, env=environment(folder, **more))
    with (folder / name).open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, *launcher, "-m", "lmtrain", *words(folder, "out")], stdout=stream, stderr=stream,
            env=environment(folder, **more),
        )  # fmt: skip


def hold(folder: Path, seen: str, processes: list[Process]) -> None:
    """From when the first process is ``seen`` to be where it waits, for several times the limit."""
    until = time.monotonic() + 200
    while not (folder / "said-0").is_file() or seen not in (folder / "said-0").read_text():
        assert time.monotonic() < until and all(process.poll() is None for process in processes), told(folder)
        time.sleep(0.1)
    time.sleep(3 * TIMEOUT)
    assert all(process.poll() is None for process in processes), told(folder)


def told(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("said-*")))


def require_end(folder: Path, processes: list[Process]) -> None:
    codes = [process.wait(timeout=240) for process in processes]
    assert codes == [0] * len(processes), told(folder)
    assert (folder / "out" / "model.safetensors").is_file()


def test_both_wait_for_whoever_prepares_it(prepared: tuple[Path, str]) -> None:
    folder, key = prepared
    (folder / "other" / "locks").mkdir(parents=True)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    with FileLock(folder / "other" / "locks" / f"{key}.lock"):
        processes = [start(folder, "said-0", *torchrun, LMTRAIN_CACHE=folder / "other")]
        hold(folder, WAITING, processes)
    require_end(folder, processes)


@pytest.mark.parametrize("slow", [0, 1])
def test_one_that_is_ready_waits_for_one_that_prepares(slow: int, prepared: tuple[Path, str]) -> None:
    """Two machines without a disk in common: one has the store already, the other is still at it."""
    folder, key = prepared
    shutil.copytree(folder / "cache", folder / "ready")
    (folder / "slow" / "locks").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2}
    with FileLock(folder / "slow" / "locks" / f"{key}.lock"):
        processes = [
            start(folder, f"said-{rank}", LMTRAIN_CACHE=folder / cache, RANK=rank, LOCAL_RANK=rank, **group)
            for rank, cache in enumerate(("slow", "ready") if slow == 0 else ("ready", "slow"))
        ]
        hold(folder, WAITING if slow == 0 else READY, processes)
    require_end(folder, processes)
