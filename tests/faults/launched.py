"""Runs of two processes under torch's elastic agent: started, watched and compared."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from forked import Forked
from tiny_models import checkpoint

AGENT = Path(__file__).with_name("agent.py")
STEPS, SAVED_EVERY = 24, 4
_started: list[Forked] = []


def little_world(folder: Path) -> Path:
    """A model and a text in ``folder``, which is returned."""
    checkpoint("gpt2", folder / "model")
    (folder / "text.txt").write_text("".join(f"The quick fox number {n} jumps over it.\n" for n in range(120)))
    return folder


def words(folder: Path, out: str, *more: object) -> list[str]:
    run = (
        f"clm --model_name_or_path {folder / 'model'} --train_file {folder / 'text.txt'} --block_size 16 --use_cpu "
        f"--max_steps {STEPS} --save_steps {SAVED_EVERY} --logging_steps 1 --eval_strategy steps --eval_steps 9 "
        f"--per_device_train_batch_size 2 --attention_dropout 0.1 --skip_check --output_dir {folder / out}"
    )
    return [*run.split(), *map(str, more)]


def environment(folder: Path, out: str, **more: object) -> dict[str, str]:
    pids = folder / f"{out}-pids"
    pids.mkdir(exist_ok=True)
    own = {"LMTRAIN_CACHE": folder / "cache", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PIDS": pids, **more}
    return {**os.environ, **{name: str(value) for name, value in own.items()}}


def agent(
    folder: Path, out: str, *more: object, launch: Mapping[str, Any] | None = None, prefix: str = "", **env: object
) -> Forked:
    """One torchrun of a run, by default for two processes on this host; what it says goes to ``{out}.said``."""
    alone = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": 2, "max_restarts": 0}
    config = {**alone, "rdzv_endpoint": "localhost:0", "rdzv_configs": {}, **(launch or {})}
    started = Forked(
        [AGENT, json.dumps(config), *words(folder, out, *more)], env=environment(folder, out, **env),
        said=folder / f"{out}{prefix}.said",
    )  # fmt: skip
    _started.append(started)
    return started


def end_all() -> None:
    """Of a test that failed: no launcher goes on, nor what it started."""
    while _started:
        left = _started.pop()
        if left.poll() is None:
            left.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                left.wait(40)  # it gives its processes 30 seconds
            left.kill()


def said(folder: Path, out: str) -> str:
    return "\n".join(path.read_text(errors="replace") for path in sorted(folder.glob(f"{out}*.said")))


def wait_until(when: Callable[[], bool], running: list[Forked], told: Callable[[], str], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not when():
        assert time.monotonic() < until and all(process.poll() is None for process in running), told()
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def status(folder: Path, out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / out / "status.json").read_text())
    return found


def exit_code(folder: Path, out: str, rank: int) -> int:
    """Of a worker; torchrun makes 1 of all."""
    return int((folder / f"{out}-pids" / f"{rank}.code").read_text())


def require_same_end(folder: Path, out: str, straight: str = "straight") -> None:
    """The exported weights, those of the last checkpoint with its optimizer, and the scores: to the bit."""
    assert status(folder, out)["state"] == "finished", said(folder, out)
    last = f"checkpoint-{STEPS}"
    for name in ("model.safetensors", f"{last}/model.safetensors", f"{last}/optimizer.pt"):
        assert (folder / out / name).read_bytes() == (folder / straight / name).read_bytes(), name
    ours, theirs = (json.loads((folder / run / "eval_results.json").read_text()) for run in (out, straight))
    assert ours["eval_loss"] == theirs["eval_loss"]
    assert not list((folder / out).glob(".*")), "what killed saves left was cleared away"
