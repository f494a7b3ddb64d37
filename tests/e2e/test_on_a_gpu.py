"""Whole commands on a GPU that is emulated (tests/emulated_gpu): what they hold on the wrong device fails here.

Losses in fp32 are those of the CPU; a run that was killed ends with the weights of one that was not, dropout included,
so the GPU's generator is kept; what does not fit into its memory is found and said.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.forkserver import ForkServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.utils.cpp_extension import include_paths, library_paths
from world import World

import forked
from lmtrain.core.errors import ExitCode
from lmtrain.core.runlog import read_events

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("an emulated GPU"),  # which is compiled once
    pytest.mark.skipif(sys.platform != "linux" or not shutil.which("g++"), reason="needs g++"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
]
EMULATED = Path(__file__).parents[1] / "emulated_gpu"
FSDP2 = EMULATED.parents[1] / "examples" / "distributed" / "fsdp2.json"


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """What starts processes that have one; compiling it takes a quarter of a minute."""
    library = tmp_path_factory.mktemp("gpu") / "libgpu.so"
    words = ["g++", "-std=c++20", "-fPIC", "-shared", EMULATED / "gpu.cpp", "-o", library]
    words += [f"-I{path}" for path in include_paths()]
    words += [f"-L{path}" for path in library_paths()] + [f"-Wl,-rpath,{path}" for path in library_paths()]
    subprocess.run([*map(str, words), "-ltorch_cpu", "-lc10"], check=True)
    with patch.dict(os.environ, EMULATED_GPU=str(library)):
        yield forked.server_with("emulated_gpu.torch_cuda")


def run(gpu: ForkServer, *words: object, gigabytes: float = 8, code: int = 0) -> forked.Ended:
    ended = forked.run([EMULATED / "run.py", gigabytes, *words], server=gpu)
    assert ended.returncode == code, ended.stderr
    return ended


def training(world: World, out: Path, more: str = "") -> list[str]:
    return (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --output_dir {out} --block_size 32 "
        f"--do_train --max_steps 8 --logging_steps 1 --per_device_train_batch_size 4 --compile off {more}"
    ).split()


def pairs_training(world: World, folder: Path, more: str = "") -> list[str]:
    pairs = folder / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": f"fox {n}", "completion": f"jumps {n}"}) + "\n" for n in range(60)))
    return (
        f"sft --model_name_or_path {world.gpt2} --train_file {pairs} --output_dir {folder / 'one'} --do_train "
        f"--max_steps 8 --logging_steps 1 --per_device_train_batch_size 4 --compile off {more}"
    ).split()


def losses(out: Path) -> list[float]:
    return [event["loss"] for event in read_events(out / "metrics.jsonl") if event["event"] == "train"]


def results(out: Path, split: str = "eval") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{split}_results.json").read_text())
    return found


def test_it_is_as_strict_as_a_gpu(gpu: ForkServer) -> None:
    run(gpu, EMULATED / "strictness.py")


def test_losses_and_evaluations_are_the_cpus(gpu: ForkServer, world: World, tmp_path: Path) -> None:
    more = "--do_eval --precision fp32 --gradient_accumulation_steps 2"
    run(gpu, *training(world, tmp_path / "gpu", more))
    assert forked.run(["-m", "lmtrain", *training(world, tmp_path / "cpu", more)]).returncode == 0
    devices = [json.loads((tmp_path / name / "run.json").read_text())["machine"] for name in ("gpu", "cpu")]
    assert devices[0]["gpus"] == ["Emulated GPU"]
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-5)
    assert results(tmp_path / "gpu")["eval_loss"] == pytest.approx(results(tmp_path / "cpu")["eval_loss"], rel=1e-5)


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(
    gpu: ForkServer, world: World, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def words(out: Path) -> list[str]:  # of a new model, which has dropout
        shape = "n_layer=2,n_embd=32,n_head=2,n_positions=32"
        more = f"--model_type gpt2 --config_overrides {shape} --tokenizer_name {world.gpt2} --save_steps 4 --seed 3"
        found = training(world, out, more)
        found[found.index("--max_steps") + 1] = "24"
        return found[:1] + found[3:]

    run(gpu, *words(whole))
    process = forked.Forked([EMULATED / "run.py", 8, *words(killed)], server=gpu)
    while process.poll() is None and not (killed / "checkpoint-4" / "manifest.json").is_file():
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"
    assert "since it went on" in run(gpu, *words(killed)).stderr
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()


@pytest.mark.parametrize("how", ["averaged", "sharded", "an adapter sharded"])
def test_two_gpus_make_the_steps_of_one(gpu: ForkServer, world: World, tmp_path: Path, how: str) -> None:
    """Of two machines with one each; their messages go by gloo, as there is no NCCL. FSDP2 is that of the Trainer's
    flags; the head is computed at labels and pairs are packed as ever. Of an adapter's row one process has nothing."""
    more = "--do_eval --precision fp32 --save_steps 4"
    first = training(world, tmp_path / "one", more)
    if "adapter" in how:
        pytest.importorskip("peft")
        first = pairs_training(world, tmp_path, f"{more} --use_peft --lora_r 1 --lora_dropout 0 --learning_rate 0.01")
    assert forked.run(["-m", "lmtrain", *first]).returncode == 0
    words = [str(tmp_path / "two") if word == str(tmp_path / "one") else word for word in first]
    words[words.index("--per_device_train_batch_size") + 1] = "2"
    words += ["--ddp_backend", "gloo", *(["--fsdp", "--fsdp_config", str(FSDP2)] if "sharded" in how else [])]
    alone = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    ends = forked.run_ranks([EMULATED / "run.py", 8, *words], 2, own=[alone, alone], server=gpu)
    assert [end.returncode for end in ends] == [0, 0], [end.stderr for end in ends]
    assert (tmp_path / "two" / "checkpoint-4" / "shards").is_dir() == ("sharded" in how)
    decisions = json.loads((tmp_path / "two" / "decisions.json").read_text())
    assert decisions["head"]["choice"] == "predicted positions"  # proven on the pieces
    assert "batches are padded" not in ends[0].stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert results(tmp_path / "two")["eval_loss"] == pytest.approx(results(tmp_path / "one")["eval_loss"], rel=1e-5)


def test_what_fits_is_found_and_what_does_not_is_said(gpu: ForkServer, world: World, tmp_path: Path) -> None:
    words = training(world, tmp_path / "large")
    at = words.index("--per_device_train_batch_size")
    found = [*words[:at], *words[at + 2 :], "--output_dir", tmp_path / "found", "--auto_batch", "--batch_tokens", 8192]
    said = run(gpu, *found, gigabytes=0.01).stderr
    (chosen,) = re.findall(r"● batch +(\d+) examples at once", said)
    assert 1 < int(chosen) < 256
    words[at + 1] = "256"
    said = run(gpu, *words, gigabytes=0.01, code=ExitCode.WRONG_INPUT).stderr
    assert "--per_device_train_batch_size   256 examples at once take" in said and "Traceback" not in said


@pytest.mark.parametrize("more", ["", "--use_peft --lora_r 4 --gradient_checkpointing", "--fp16", "--optim muon"])
def test_pairs_are_learned(gpu: ForkServer, world: World, tmp_path: Path, more: str) -> None:
    if "peft" in more:
        pytest.importorskip("peft")
    said = run(gpu, *pairs_training(world, tmp_path, f"--do_eval {more}")).stderr
    assert "reloaded and compared" in said and results(tmp_path / "one")["eval_loss"] < 100


def test_masked_models_are_profiled(gpu: ForkServer, world: World, tmp_path: Path) -> None:
    words = f"profile mlm --model_name_or_path {world.bert} --train_file {world.text} --line_by_line"
    said = run(gpu, *f"{words} --per_device_train_batch_size 4 --compile off --output_dir {tmp_path / 'out'}".split())
    assert re.search(r"^head and loss +[\d.]+ ", said.stdout, re.MULTILINE)


def test_what_is_written_is_what_a_cpu_writes(gpu: ForkServer, world: World) -> None:
    words = ["generate", "--model_name_or_path", world.gpt2, "The quick", "--max_new_tokens", 12, "--precision", "fp32"]
    for how in (["--seed", 5], ["--greedy", "--num_beams", 3]):
        assert run(gpu, *words, *how).stdout == forked.run(["-m", "lmtrain", *words, *how]).stdout != ""
