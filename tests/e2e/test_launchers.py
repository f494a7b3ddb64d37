"""The same command as a module, under torchrun and under accelerate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from world import World


def launch(words: list[str], cache: Path) -> str:
    environment = {**os.environ, "LMTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def command(world: World, out: Path) -> list[str]:
    return (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --max_steps 3 --use_cpu "
        f"--learning_rate 1e-3 --output_dir {out}"
    ).split()


def loss(folder: Path) -> float:
    return json.loads((folder / "eval_results.json").read_text())["eval_loss"]


def test_two_processes_train_as_one_does(world: World, tmp_path: Path, own_cache: Path) -> None:
    """Global batch 8 as 1 × 8, under python -m, and as 2 × 4, under torchrun: one result."""
    launch([sys.executable, "-m", "lmtrain", *command(world, tmp_path / "one")], own_cache)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lmtrain"]
    said = launch([*torchrun, *command(world, tmp_path / "two"), "--per_device_train_batch_size", "4"], own_cache)
    assert said.count("● result") == 1, "one process speaks"
    one, two = (json.loads((tmp_path / name / "eval_results.json").read_text()) for name in ("one", "two"))
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-6)
    assert two["eval_tokens"] == one["eval_tokens"], "every token is counted once"
    assert json.loads((tmp_path / "two" / "status.json").read_text())["state"] == "finished"


def test_accelerate_launch(world: World, tmp_path: Path, own_cache: Path) -> None:
    words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
             "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "lmtrain"]  # fmt: skip
    launch([*words, *command(world, tmp_path / "out")], own_cache)
    assert loss(tmp_path / "out") > 0
