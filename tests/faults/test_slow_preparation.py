"""Preparation that takes longer than ``--ddp_timeout``: nobody is left waiting in an exchange, and nobody dies.

What is slow is real: a process that holds the lock of the store, as one does that prepares it.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from filelock import FileLock
from launched import agent, little_world
from test_killed_rank import environment

from forked import Forked, ranks
from launching import MARKS
from lmtrain.cli.main import main

pytestmark = [*MARKS, pytest.mark.usefixtures("nobody_is_left")]
WAITING, READY = "another process is preparing this text; waiting for it", "tokens, prepared before"
TIMEOUT = 10  # seconds that an exchange may take


def words(folder: Path, out: str) -> list[str]:
    return (
        f"-m lmtrain clm --model_name_or_path {folder / 'model'} --train_file {folder / 'text.txt'} --block_size 16 "
        f"--use_cpu --max_steps 4 --save_strategy no --ddp_timeout {TIMEOUT} --output_dir {folder / out}"
    ).split()


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A folder with model, text and, in ``ready``, their stores; and the key of the training text's."""
    little_world(tmp_path)
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "ready"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(words(tmp_path, "alone")[2:]) == 0
    (store,) = (tmp_path / "ready" / "stores").iterdir()
    return tmp_path, store.name


def test_whoever_is_ready_waits_for_whoever_prepares(prepared: tuple[Path, str]) -> None:
    """Three runs at once. In one, under torchrun, both processes wait for a third; two are of two machines without a
    disk in common: the first has the store already and the second is still at it, and the other way round."""
    folder, key = prepared
    with ExitStack() as preparing:
        for slow in ("both", "first", "second"):
            (folder / slow / "locks").mkdir(parents=True)
            preparing.enter_context(FileLock(folder / slow / "locks" / f"{key}.lock"))
        limit = ("--ddp_timeout", TIMEOUT)
        running = {"both": [agent(folder, "both-out", *limit, LMTRAIN_CACHE=folder / "both")]}
        for slow, caches in (("first", ("first", "ready")), ("second", ("ready", "second"))):
            own = [{"LMTRAIN_CACHE": str(folder / cache)} for cache in caches]
            running[slow] = ranks(words(folder, f"{slow}-out"), 2, env=environment(folder), own=own)
        seen = {"both": WAITING, "first": WAITING, "second": READY}
        until = time.monotonic() + 300
        while not all(seen[name] in processes[0].output(-1) for name, processes in running.items()):
            require_life(running)
            assert time.monotonic() < until, told(running)
            time.sleep(0.1)
        time.sleep(1.5 * TIMEOUT)  # from when each is where it waits
        require_life(running)
    codes = {name: [process.wait(timeout=240) for process in processes] for name, processes in running.items()}
    assert not any(any(each) for each in codes.values()), told(running)
    assert all((folder / f"{name}-out" / "model.safetensors").is_file() for name in running)


def require_life(running: dict[str, list[Forked]]) -> None:
    assert all(process.poll() is None for each in running.values() for process in each), told(running)


def told(running: dict[str, list[Forked]]) -> str:
    return "\n".join(process.output(-1) for each in running.values() for process in each)
