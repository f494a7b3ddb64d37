"""The same command again, and flags that say otherwise: the commands as a user types them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
from world import World

from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode, Interrupted

Run = Callable[..., str]


@pytest.fixture
def run(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A little training in ``out``, with more words; returns what it says."""
    text = tmp_path / "text.txt"
    shutil.copy(world.text, text)

    def one(*more: str, code: int = 0, before: str = "", steps: int = 3) -> str:
        words = (
            f"{before} clm --model_name_or_path {world.gpt2} --train_file {text} --output_dir {tmp_path}/out "
            f"--do_train --use_cpu --block_size 16 --max_steps {steps} --save_steps 1 --keep_optimizer_states 9 "
            f"--learning_rate 1e-2 --skip_check --validation_split_percentage 0"
        ).split()
        monkeypatch.setattr(sys, "argv", ["lmtrain", *words, *more])
        capsys.readouterr()
        came = main([*words, *more])
        said = capsys.readouterr()
        assert came == code, said.err
        return said.err + said.out

    return one


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal would."""
    from lmtrain.engine.trainer.stopping import StopWhenAsked

    def on_step_begin(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == step:
            raise Interrupted("SIGTERM", together=True)

    monkeypatch.setattr(StopWhenAsked, "on_step_begin", on_step_begin, raising=False)


def kept(out: Path) -> list[str]:
    return sorted(entry.name.replace("checkpoint-", "") for entry in out.glob("*checkpoint-*"))


def weights(place: Path) -> dict[str, torch.Tensor]:
    return load_file(place / "model.safetensors")


def test_a_job_that_is_queued_again_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does it remove what it has made, nor go back to where it began; and it ends as if undisturbed."""
    out = tmp_path / "out"
    run()
    right = weights(out)
    shutil.move(out / "checkpoint-1", tmp_path / "elsewhere")
    for words in (["--overwrite_output_dir"], ["--resume_from_checkpoint", f"{tmp_path}/elsewhere"]):
        if "--overwrite_output_dir" not in words:
            shutil.rmtree(out)
        with monkeypatch.context() as patch:
            stop_at(2, patch)
            assert "the same command goes on" in run(*words, code=ExitCode.INTERRUPTED)
        assert kept(out)[-1] == "2"
        assert "goes on from step 2" in run(*words)
        assert all(torch.equal(value, right[name]) for name, value in weights(out).items())
    assert "has no part in it: the run is finished" in run(*words)


def test_a_checkpoint_that_is_named_is_never_removed(run: Run, world: World, tmp_path: Path) -> None:
    """The stock Trainer's, in the folder that is written over."""
    out = tmp_path / "out"
    model = AutoModelForCausalLM.from_pretrained(world.gpt2)
    rows = [{"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]}] * 4
    args = TrainingArguments(str(out), max_steps=3, save_steps=1, report_to="none", use_cpu=True, learning_rate=0.01)
    Trainer(model, args, train_dataset=rows).train()
    (out / "config.json").write_text("{}")
    named = ["--resume_from_checkpoint", f"{out}/checkpoint-2"]
    assert "add --overwrite_output_dir" in run(*named, code=2)
    stock = weights(out / "checkpoint-2")
    assert "goes on from step 2" in run(*named, "--overwrite_output_dir")
    assert kept(out) == ["2", "3"]
    assert all(torch.equal(value, stock[name]) for name, value in weights(out / "checkpoint-2").items())
    moved = max(float((value - stock[name]).abs().max()) for name, value in weights(out).items())
    assert 0 < moved < 0.03, "one step of Adam from there"


def test_an_older_checkpoint_begins_a_branch_that_a_crash_does_not_leave(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run("--dropout", "0.1")
    back = ["--dropout", "0.3", "--accept_changes", "--resume_from_checkpoint", f"{out}/checkpoint-1"]
    with monkeypatch.context() as patch:
        stop_at(1, patch)
        said = run(*back, code=ExitCode.INTERRUPTED)
    assert "checkpoint-2, checkpoint-3: of the training that is left here" in said
    assert kept(out) == ["1", "left-2", "left-3"]
    assert "goes on from step 1" in run(*back[:-2]), "also when it is not named again"
    assert kept(out) == ["1", "2", "3", "left-2", "left-3"]


def test_two_commands_at_once_in_one_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second prepares for as long as the first takes from its beginning to its end."""
    from lmtrain.engine import assembly

    out, prepare = tmp_path / "out", assembly.assemble
    ends: list[dict[str, torch.Tensor]] = []

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(assembly, "assemble", prepare)
        run(steps=2)
        ends.append(weights(out))
        return prepare(*args, **kwargs)

    for flags in ([], ["--overwrite_output_dir"]):
        monkeypatch.setattr(assembly, "assemble", meanwhile)
        assert "another command has worked on the run" in run(*flags, code=2)
        assert all(torch.equal(value, ends[-1][name]) for name, value in weights(out).items())
        shutil.rmtree(out)


def test_check_finds_what_the_run_would_refuse(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        run(code=ExitCode.INTERRUPTED)
    assert "goes on with the run" in run(before="check")
    no_folder = run("--resume_from_checkpoint", f"{tmp_path}/no", before="check", code=2)
    assert "--resume_from_checkpoint" in no_folder and "no such folder" in no_folder
    (tmp_path / "text.txt").write_text("Another text, of which nobody knew.\n" * 200)
    assert "the train text or its tokenizer has changed" in run(before="check", code=2)
    none = run("--dataloader_drop_last", "--per_device_train_batch_size", "9999", before="check", code=2)
    assert "leaves nothing to train on" in none


def test_what_was_decided_holds_until_the_end(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number format and threads are those that the run began with; the threads on the same machine alone."""
    out, threads = tmp_path / "out", torch.get_num_threads()
    with monkeypatch.context() as patch:
        stop_at(1, patch)
        run(code=ExitCode.INTERRUPTED)
    decisions = json.loads((out / "decisions.json").read_text())
    assert decisions["precision"]["choice"] == "fp32" and decisions["threads"] == threads
    other = {**decisions, "precision": {"choice": "bf16", "reason": "x"}, "threads": threads + 1}
    (out / "decisions.json").write_text(json.dumps(other))
    try:
        with monkeypatch.context() as patch:
            stop_at(2, patch)
            assert "bf16 (as this run began)" in run("--accept_changes", code=ExitCode.INTERRUPTED)
            assert torch.get_num_threads() == threads + 1
        elsewhere = {**other, "threads_for": {**other["threads_for"], "cpus": 4096}}
        (out / "decisions.json").write_text(json.dumps(elsewhere))
        torch.set_num_threads(threads)
        assert f"computes with {threads} instead of {threads + 1} threads" in run("--accept_changes")
    finally:
        torch.set_num_threads(threads)


def test_a_finished_run_without_a_checkpoint_is_not_trained_again_to_make_it_longer(run: Run, tmp_path: Path) -> None:
    run("--save_strategy", "no")
    model = weights(tmp_path / "out")
    assert "kept no checkpoint to go on from" in run("--save_strategy", "no", "--extend", code=2, steps=5)
    assert all(torch.equal(value, model[name]) for name, value in weights(tmp_path / "out").items())
