"""``lmtrain profile`` and ``lmtrain check``: what they say of a run, and that they leave none behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from test_launchers import figures as scores
from world import World

from forked import run_ranks
from lmtrain.cli.main import main
from lmtrain.core.runlog import read_events
from lmtrain.engine.trainer.settling import SettlingTrainer


def test_a_profile_of_a_run_s_steps(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (
        f"profile clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --steps 3 "
        f"--gradient_accumulation_steps 2 --per_device_train_batch_size 2 --output_dir {tmp_path}/out"
    )
    assert main(command.split()) == 0
    shown = capsys.readouterr().out
    assert "2 examples a micro-batch, accumulated 2 times · 64 tokens, 60 predicted · 0.0% padding" in shown
    for part in ("data", "body, forward", "head and loss", "body, backward", "update", "other", "weights", "MFU"):
        assert part in shown
    assert main([*command.split(), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["steps"] == 3 and figures["work"] == {"tokens": 64, "predicted": 60, "squares": 4 * 16**2}
    assert sum(figures["seconds"].values()) == pytest.approx(figures["step_seconds"])
    assert 0 < figures["mfu"] < 1
    assert not (tmp_path / "out").exists()


def test_a_profile_of_masked_lines_names_their_padding(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = f"--model_name_or_path {world.bert} --train_file {world.text} --line_by_line --max_seq_length 48"
    assert main(f"profile mlm {lines} --pad_to_max_length --batch_tokens 480 --steps 2 --json".split()) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["work"]["tokens"] == pytest.approx(480, rel=0.2), "the step that the run will make"
    assert figures["work"]["predicted"] < figures["work"]["tokens"] <= figures["positions"]
    assert (figures["padding"] > 0.05) == any("padding" in line for line in figures["advice"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["profile", "check", "verify-resume"])
def test_what_is_asked_about_must_be_said(command: str, capsys: pytest.CaptureFixture[str], world: World) -> None:
    for words in ([], ["--train_file", "a.txt"], ["evaluate"]):
        assert main([command, *words]) == 2
        assert f"lmtrain {command} clm ..." in capsys.readouterr().err
    broken = f"{command} clm --model_name_or_path {world.gpt2} --train_file {world.text} --output_dir o"
    assert main([*broken.split(), "--blok_size", "8", "--steps", "none", "--json", "perhaps"]) == 2
    said = capsys.readouterr().err
    assert "did you mean --block_size?" in said
    assert "--json" in said and "--steps" in said, "problems of both kinds come together"


def test_a_micro_batch_that_is_found_stays_with_the_run(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --max_steps 4 --save_steps 2 "
        f"--learning_rate 1e-2 --output_dir {out}"
    )
    assert main([*command.split(), "--auto_batch"]) == 0
    assert "● batch" in capsys.readouterr().err
    decided = json.loads((out / "decisions.json").read_text())["micro_batch"]
    assert decided["examples"] * decided["accumulation"] == 8, "the step is the one asked for"
    figures = json.loads((out / "all_results.json").read_text())
    plain = tmp_path / "plain"
    assert main(command.replace(str(out), str(plain)).split()) == 0
    same = json.loads((plain / "all_results.json").read_text())
    assert figures["eval_loss"] == pytest.approx(same["eval_loss"], rel=1e-5)
    measured, asked = (json.loads((folder / "decisions.json").read_text()) for folder in (out, plain))
    for name in ("activations", "dropout", "head", "kernel", "compile"):
        assert measured[name]["choice"] == asked[name]["choice"], "trying sizes leaves the model as it was"
    assert measured["activations"]["choice"] == "fused"
    ended = (out / "model.safetensors").read_bytes()

    (out / "status.json").write_text(json.dumps({"state": "training", "step": 2}))
    (out / "decisions.json").write_text(
        json.dumps(json.loads((out / "decisions.json").read_text()) | {"micro_batch": {**decided, "reason": "before"}})
    )
    for extra in (out / "checkpoint-4").iterdir():
        extra.unlink()
    (out / "checkpoint-4").rmdir()
    capsys.readouterr()
    assert main([*command.split(), "--auto_batch"]) == 0
    assert json.loads((out / "decisions.json").read_text())["micro_batch"]["reason"] == "before", "not measured again"
    assert (out / "model.safetensors").read_bytes() == ended, "the rest of a run is the run's, to the bit"


def test_a_size_that_does_not_fit_ends_nothing(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where layers may be compiled: no pass is made with the size asked for before smaller ones were tried."""
    sizes: list[int] = []
    real = SettlingTrainer.one_pass

    def one_pass(trainer: SettlingTrainer, batch: dict[str, Any]) -> None:
        sizes.append(len(batch["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(trainer, batch)

    monkeypatch.setattr(SettlingTrainer, "one_pass", one_pass)
    command = f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --max_steps 20"
    assert main(f"{command} --auto_batch --output_dir {tmp_path}/out".split()) == 0
    decided = json.loads((tmp_path / "out" / "decisions.json").read_text())["micro_batch"]
    assert decided["examples"] <= 2 and decided["examples"] * decided["accumulation"] == 8
    assert sizes[0] == 1 and sizes.count(4) <= 1 and 8 not in sizes


def test_a_step_of_so_many_tokens(world: World, tmp_path: Path) -> None:
    command = f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --max_steps 2"
    assert main(f"{command} --batch_tokens 192 --output_dir {tmp_path}/out".split()) == 0
    decided = json.loads((tmp_path / "out" / "decisions.json").read_text())["micro_batch"]
    assert decided["examples"] * decided["accumulation"] == 12
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text())["num_input_tokens_seen"] == 2 * 192


def test_the_plan_is_what_the_run_then_does(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --num_train_epochs 2 "
        f"--per_device_train_batch_size 4 --gradient_accumulation_steps 3 --eval_strategy steps --eval_steps 10 "
        f"--save_steps 20 --save_total_limit 2 --output_dir {out}"
    )
    assert main(f"check {command} --json".split()) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not out.exists()
    assert main(f"check {command}".split()) == 0
    shown = capsys.readouterr().out
    assert f"{plan['steps']:,} steps of 12 examples: {plan['epochs']:g} epochs" in shown
    assert f"starts in {out}" in shown and "about" in shown and "free" in shown

    assert main(command.split()) == 0
    state = json.loads((out / "trainer_state.json").read_text())
    data = json.loads((out / "train_results.json").read_text())
    assert state["global_step"] == plan["steps"]
    assert data["train_samples"] == plan["examples"]
    assert abs(state["num_input_tokens_seen"] / plan["tokens"] - 1) < 0.02
    kept = [path for path in out.iterdir() if path.name.startswith("checkpoint-")]
    assert len(kept) <= plan["checkpoints"] == 3, "two, and the one being written"
    lies_there = sum(file.stat().st_size for file in out.rglob("*.safetensors")) + sum(
        file.stat().st_size for file in out.rglob("optimizer.pt")
    )
    assert 0.5 < lies_there / plan["disk"] < 1.1
    assert 0 < plan["mfu"] < 1 and plan["memory"] < plan["memory_free"]
    events = [event for event in read_events(out / "metrics.jsonl") if event["event"] == "evaluation"]
    assert len(events) == plan["evaluations"]

    capsys.readouterr()
    assert main(f"check {command}".split()) == 0
    assert "is finished" in capsys.readouterr().out


def test_all_problems_of_a_run_come_at_once(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    words = f"check clm --model_name_or_path {world.gpt2} --train_file {world.text} --output_dir {tmp_path}/file"
    assert main([*words.split(), "--block_size", "4096"]) == 2
    said = capsys.readouterr().err
    assert "2 things to change" in said
    assert "--output_dir" in said and "is a file" in said and "48 positions" in said

    from lmtrain.rehearsal import estimate, footprint

    monkeypatch.setattr(footprint, "disk_usage", lambda folder: type("Disk", (), {"free": 1000}))
    monkeypatch.setattr(estimate, "free_here", lambda device: -(10**12))
    assert main([*words.replace("/file", "/out").split(), "--block_size", "16"]) == 2
    said = capsys.readouterr().err
    assert "--auto_batch" in said and "--save_strategy no" in said


def test_two_processes_share_a_step(world: World, tmp_path: Path, own_cache: Path) -> None:
    """A profile is of one process's share, and both go on with one size."""
    environment = {**os.environ, "LMTRAIN_CACHE": str(own_cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def lmtrain(processes: int, *words: str) -> str:
        ends = run_ranks(["-m", "lmtrain", *words], processes, env=environment, cwd=tmp_path)
        assert not any(end.returncode for end in ends), [end.stderr for end in ends]
        return "".join(end.stdout for end in ends)

    run = (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --use_cpu "
        "--per_device_train_batch_size 4"
    ).split()
    figures = json.loads(lmtrain(2, "profile", *run, "--steps", "3", "--json"))
    assert (figures["processes"], figures["work"]["tokens"], figures["padding"]) == (2, 64, 0)
    assert figures["tokens_per_second"] == pytest.approx(128 / figures["step_seconds"])
    assert list(tmp_path.iterdir()) == []
    lmtrain(2, *run, "--max_steps", "3", "--auto_batch", "--output_dir", f"{tmp_path}/two")
    lmtrain(1, *run, "--per_device_train_batch_size", "8", "--max_steps", "3", "--output_dir", f"{tmp_path}/one")
    losses = [scores(tmp_path / name)["eval_loss"] for name in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    two, one = (json.loads((tmp_path / name / "train_results.json").read_text()) for name in ("two", "one"))
    assert two["total_flos"] == one["total_flos"], "counted over both"
    decided = json.loads((tmp_path / "two" / "decisions.json").read_text())["micro_batch"]
    assert decided["examples"] * decided["accumulation"] == 4
