"""The open loop and LMTrainer make the same steps."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from examples_run import EXAMPLES, environment
from safetensors.torch import load_file
from trainer_run import OPTIONS, run

import as_commands_do
import forked
import miniature
from launching import MARKS, launch

LOOP = EXAMPLES / "accelerate_loop.py"
torch.set_num_threads(1)  # as many as the processes have that it is compared with


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A checkpoint with dropout, a text of 41 blocks (an epoch ends in a short window of a short batch), and one of 9
    (which two processes cannot share evenly)."""
    folder = tmp_path_factory.mktemp("made")
    model = miniature.gpt2(folder / "model")
    words = " ".join(miniature.texts()).split()
    texts = []
    for name, part in (("train", words[:700]), ("validation", words[700:860])):
        texts.append(folder / f"{name}.txt")
        texts[-1].write_text(" ".join(part), encoding="utf-8")
    return model, *texts


def words(made: tuple[Path, Path, Path], folder: Path, **options: Any) -> list[str]:
    model, train, validation = made
    given = {**OPTIONS, **options, "model_name_or_path": model, "train_file": train, "validation_file": validation,
             "output_dir": folder}  # fmt: skip
    return [*(str(word) for name, value in given.items() for word in (f"--{name}", value)), "--use_cpu"]


def of_loop(folder: Path) -> dict[str, list[float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {name: [line[name] for line in lines if name in line] for name in FIGURES}


def of_trainer(folder: Path) -> dict[str, list[float]]:
    lines = json.loads((folder / "log.json").read_text())
    return {name: [line[name] for line in lines if name in line] for name in FIGURES}


FIGURES = ("loss", "learning_rate", "grad_norm", "eval_loss", "eval_perplexity")


def assert_same_training(loop: Path, trainer: Path) -> None:
    ours, theirs = of_loop(loop), of_trainer(trainer)
    assert len(ours["loss"]) == OPTIONS["max_steps"] and len(ours["eval_loss"]) == 2
    for name in FIGURES:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6), name
    assert ours["loss"][-1] < ours["loss"][0] - 0.5  # and it learns
    mine, its = load_file(loop / "model.safetensors"), load_file(trainer / "model" / "model.safetensors")
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], its[name]) for name in mine)


def test_on_one_process_to_the_bit_and_resumed(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    trainer, straight, cut = (tmp_path / name for name in ("trainer", "straight", "cut"))
    trainer.mkdir()
    run(*made, trainer)
    launch(LOOP, *words(made, straight))
    assert_same_training(straight, trainer)

    # Killed in the middle of the second epoch, after a checkpoint and some steps, and started again.
    shutil.copytree(straight, cut)
    lines = (cut / "log.jsonl").read_text().splitlines(keepends=True)
    torn = next(line for line in lines if json.loads(line)["step"] == 9)[:20]
    (cut / "log.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 8) + torn)
    for late in (cut / "checkpoint-10" / "model.safetensors", cut / "model.safetensors"):
        late.unlink()
    launch(LOOP, *words(made, cut, max_steps=-1, epochs=2))  # as many
    assert of_loop(cut) == of_loop(straight)
    assert (cut / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()


@MARKS[0]
@MARKS[1]
def test_on_two_processes(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Of ``accelerate launch``, which makes the variables that torchrun makes."""
    launch(Path(__file__).with_name("trainer_run.py"), *made, tmp_path / "trainer", processes=2)
    options = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    launcher = ["-m", "accelerate.commands.launch", *options.split(), "--main_process_port", "0"]
    done = forked.run([*launcher, as_commands_do.__file__, LOOP, *words(made, tmp_path / "loop")], env=environment())
    assert done.returncode == 0, done.stderr
    assert_same_training(tmp_path / "loop", tmp_path / "trainer")


def test_it_can_be_read_in_one_go() -> None:
    assert len(LOOP.read_text().splitlines()) <= 150
