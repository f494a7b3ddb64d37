"""The same command as a module, under torchrun and under accelerate, on one process and on two."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from world import World

import forked


def launch(launcher: str, words: list[str], cache: Path) -> str:
    """What is said under a launcher, which is a fork; the processes that it starts import all they need."""
    environment = {**os.environ, "LMTRAIN_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = forked.run(["-m", *launcher.split(), "-m", "lmtrain", *words], env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def command(world: World, out: Path) -> list[str]:
    return (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --max_steps 3 --use_cpu "
        f"--learning_rate 1e-3 --output_dir {out}"
    ).split()


def figures(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "eval_results.json").read_text())
    return found


@pytest.fixture(scope="module")
def one(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, of 8 examples a step, and the cache that it left."""
    folder = tmp_path_factory.mktemp("one")
    said = launch(ALONE, command(world, folder / "run"), folder / "cache")
    assert said.count("● result") == 1
    return folder


ALONE = "accelerate.commands.launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"
TORCHRUN = "torch.distributed.run --standalone --nproc_per_node 2"
ACCELERATE = (
    "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no --main_process_port 0"
)


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_train_as_one_does(launcher: str, one: Path, world: World, tmp_path: Path) -> None:
    """Global batch 8 as 1 × 8 and as 2 × 4: one result."""
    words = [*command(world, tmp_path / "two"), "--per_device_train_batch_size", "4"]
    said = launch(launcher, words, one / "cache")
    assert said.count("● result") == 1, "one process speaks"
    alone, two = figures(one / "run"), figures(tmp_path / "two")
    assert two["eval_loss"] == pytest.approx(alone["eval_loss"], rel=1e-6)
    assert two["eval_tokens"] == alone["eval_tokens"], "every token is counted once"
    assert json.loads((tmp_path / "two" / "status.json").read_text())["state"] == "finished"
