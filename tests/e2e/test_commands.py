"""The commands as a user types them, on small real runs."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    pipeline,
)
from world import TEXT, World

from lmtrain.cli.main import main
from lmtrain.core.hub import why_unreachable
from lmtrain.core.runlog import read_events


def run(command: str) -> None:
    assert main(command.split()) == 0


def results(folder: Path, name: str = "all") -> dict[str, float]:
    return json.loads((folder / f"{name}_results.json").read_text())


@pytest.fixture
def reached_for(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whatever is asked of a network that is not there, where nobody has said that there is none."""
    asked: list[Any] = []

    def refuse(*address: Any, **_: Any) -> None:
        asked.append(address)
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("lmtrain.core.hub._found", {})
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return asked


def test_text_in_a_measured_model_out(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], reached_for: list[Any]
) -> None:
    """From a local model and local text every command gets along without a network."""
    out = tmp_path / "out"
    command = (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --output_dir {out} --block_size 32 "
        "--num_train_epochs 3 --learning_rate 3e-3 --logging_steps 5 --per_device_train_batch_size 4"
    )
    run(command)
    said = capsys.readouterr().err
    scores = results(out)
    assert scores["eval_loss"] < 2.0, "a text of two sentences is learned"
    assert math.isclose(scores["perplexity"], math.exp(scores["eval_loss"]), rel_tol=1e-9)
    assert scores["eval_tokens"] == scores["eval_samples"] * 31, "every token of a block but its first"
    trained = results(out, "train")
    assert {"train_loss", "train_runtime", "train_samples", "train_tokens_per_second"} <= trained.keys()
    peak = json.loads((out / "decisions.json").read_text())["peak"]
    assert 0 < trained["train_mfu"] < 1 and 0 <= trained["train_waiting_for_data"] < 1
    assert trained["train_tflops"] * 1e12 == pytest.approx(trained["train_mfu"] * peak["flops"], rel=0.01)
    assert "MFU" in said
    assert (out / "trainer_state.json").is_file()
    for record in ("run.json", "decisions.json", "data.json", "status.json"):
        json.loads((out / record).read_text())
    assert json.loads((out / "status.json").read_text())["state"] == "finished"
    steps = [event for event in read_events(out / "metrics.jsonl") if event["event"] == "train"]
    assert steps
    assert {"step", "tokens", "loss", "learning_rate", "grad_norm", "tokens_per_second", "time_left"} <= steps[0].keys()
    assert "\r" not in said
    assert "longer than the specified" not in said

    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    written = pipeline("text-generation", model=str(out))("The quick fox number", max_new_tokens=8, do_sample=False)
    assert (
        "jumps over"
        in pipeline("text-generation", model=str(out))("The slow fox number 7", max_new_tokens=12, do_sample=False)[0][
            "generated_text"
        ]
    )
    assert written[0]["generated_text"].startswith("The quick fox number")

    run(command)  # the same command again: finished, nothing trained
    assert "is finished" in capsys.readouterr().err
    assert results(out) == scores
    assert main([*command.split(), "--seed", "7"]) == 2
    assert "--seed" in capsys.readouterr().err

    run(f"evaluate --model_name_or_path {out} --validation_file {world.text} --block_size 32 --json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["validation"]["eval_loss"] < 2.0
    run(f"prepare --train_file {world.text} --tokenizer_name {out} --output_dir {tmp_path / 'store'}")
    run(f"generate --model_name_or_path {out} It --max_new_tokens 2")
    assert not reached_for
    assert why_unreachable() and reached_for, "so it would have been noticed"
    run(f"generate --model_name_or_path {out} --greedy --max_new_tokens 8 The")
    assert "fox" in capsys.readouterr().out


def test_as_long_as_so_many_tokens_take(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --output_dir {out} --block_size 32 "
        "--per_device_train_batch_size 4 --logging_steps 1 --lr_scheduler_type linear --skip_check --train_tokens"
    )
    run(f"{command} 500")
    state = json.loads((out / "trainer_state.json").read_text())
    assert state["global_step"] == state["max_steps"] == 4, "500 tokens are reached in the fourth step of 128"
    assert state["num_input_tokens_seen"] == 512
    assert main(f"{command} 640".split()) == 2
    assert "--train_tokens" in capsys.readouterr().err
    run(f"{command} 640 --extend")
    assert json.loads((out / "trainer_state.json").read_text())["global_step"] == 5


def test_masked_line_by_line(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    run(
        f"mlm --model_name_or_path {world.bert} --train_file {world.text} --line_by_line --max_seq_length 32 "
        f"--output_dir {out} --num_train_epochs 2 --learning_rate 3e-3"
    )
    said = capsys.readouterr().err
    assert "masked-token perplexity" in said
    scores = results(out)
    assert math.isclose(scores["perplexity"], math.exp(scores["eval_loss"]), rel_tol=1e-9)
    assert "bits_per_byte" not in scores, "bits per byte of a text mean nothing for hidden tokens"
    AutoModelForMaskedLM.from_pretrained(out)
    run(
        f"generate --model_name_or_path {out} --json --top 3".split()[0]
        + f" --model_name_or_path {out} --json --top 3 [MASK]"
    )
    filled = json.loads(capsys.readouterr().out.splitlines()[0])
    assert filled


def test_every_split_has_its_own_scores_and_is_said_once(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "other.txt").write_text("Quite another text, of quite other words.\n" * 20)
    run(
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --test_file {tmp_path}/other.txt "
        f"--block_size 16 --max_steps 4 --eval_strategy steps --eval_steps 2 --save_steps 2 --load_best_model_at_end "
        f"--metric_for_best_model perplexity --save_total_limit 1 --output_dir {out}"
    )
    said = capsys.readouterr().err
    assert "[transformers]" not in said, "no library speaks"
    assert said.count("● result") == 2
    assert said.count("● tokenizer") == 1
    assert said.count("  evaluation  ") == 2, "the evaluations of training; the last ones are the result"
    evaluations = [event for event in read_events(out / "metrics.jsonl") if event["event"] == "evaluation"]
    best = min(event["eval_perplexity"] for event in evaluations if "eval_perplexity" in event)
    scores = results(out)
    assert scores["perplexity"] == pytest.approx(best, rel=1e-9), "the best is the lowest"
    assert math.isclose(scores["test_perplexity"], math.exp(scores["test_loss"]), rel_tol=1e-9)
    assert scores["test_loss"] != scores["eval_loss"] == results(out, "eval")["eval_loss"]


def test_an_evaluation_asked_for_later_is_of_the_trained_model(world: World, tmp_path: Path) -> None:
    command = (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --max_steps 6 "
        f"--learning_rate 1e-2 --output_dir {tmp_path}"
    )
    run(f"{command}/later --do_train")
    assert "eval_loss" not in results(tmp_path / "later")
    run(f"{command}/later --do_train --do_eval")
    run(f"{command}/at_once")
    later, at_once = results(tmp_path / "later"), results(tmp_path / "at_once")
    assert later["eval_loss"] == pytest.approx(at_once["eval_loss"], rel=1e-6)


def test_a_run_is_repeatable_from_its_own_record(world: World, tmp_path: Path) -> None:
    command = f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --max_steps 5"
    run(f"{command} --output_dir {tmp_path}/a")
    options = json.loads((tmp_path / "a" / "run.json").read_text())["options"]
    (tmp_path / "again.json").write_text(json.dumps(options))
    run(f"clm --config {tmp_path}/again.json --output_dir {tmp_path}/b")
    a, b = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in "ab")
    assert all((left == right).all() for left, right in zip(a.parameters(), b.parameters(), strict=True))
    assert results(tmp_path / "a")["eval_loss"] == results(tmp_path / "b")["eval_loss"]


def test_a_checkpoint_of_the_stock_trainer_is_gone_on_from(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to its own last step, so that what is exported is what it held."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(world.gpt2), AutoTokenizer.from_pretrained(world.gpt2)
    ids = tokenizer(TEXT)["input_ids"]
    rows = [{"input_ids": ids[at : at + 16], "labels": ids[at : at + 16]} for at in range(0, 320, 16)]
    args = TrainingArguments(str(tmp_path / "stock"), max_steps=2, learning_rate=1e-2, use_cpu=True, report_to="none")
    Trainer(model=model, args=args, train_dataset=rows).train()
    run(
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --max_steps 2 --do_train "
        f"--resume_from_checkpoint {tmp_path}/stock/checkpoint-2 --output_dir {tmp_path}/out"
    )
    assert "goes on from step 2" in capsys.readouterr().err
    ours, fresh = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (tmp_path / "out", world.gpt2))
    assert all(torch.equal(value, ours[name]) for name, value in model.state_dict().items())
    assert not torch.equal(ours["lm_head.weight"], fresh["lm_head.weight"])


def test_an_unfinished_run_does_not_go_on_with_another_text(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, text = tmp_path / "out", tmp_path / "a.txt"
    text.write_text(TEXT)
    command = (
        f"clm --model_name_or_path {world.gpt2} --train_file {text} --block_size 16 --max_steps 2 --output_dir {out}"
    )
    run(command)
    (out / "status.json").write_text(json.dumps({"state": "training", "step": 2}))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    text.write_text(TEXT.replace("quick", "clever"))
    assert main(command.split()) == 2
    assert "has changed" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_text_shorter_than_a_block_trains_and_says_so(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.txt").write_text("One short line.\n")
    run(
        f"clm --model_name_or_path {world.gpt2} --train_file {tmp_path}/short.txt --validation_file {world.text} "
        f"--output_dir {tmp_path}/out --max_steps 2"
    )
    assert "short" in capsys.readouterr().err


def test_a_tokenizer_of_ones_own_and_standard_input(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(f"tokenizer --train_file {world.text} --vocab_size 300 --output_dir {tmp_path}/tok")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    every_byte = bytes(range(256)).decode("latin-1")
    assert tokenizer.decode(tokenizer(every_byte)["input_ids"]) == every_byte
    import io
    import sys

    class Pipe(io.TextIOWrapper):
        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", Pipe(io.BytesIO(TEXT.encode())))
    run(
        f"clm --model_type gpt2 --config_overrides n_embd=16,n_layer=1,n_head=2,n_positions=32 "
        f"--tokenizer_name {tmp_path}/tok "
        f"--train_file - --output_dir {tmp_path}/out --max_steps 2"
    )
    assert results(tmp_path / "out")["eval_loss"] > 0


def test_one_json_file_is_the_whole_configuration(world: World, tmp_path: Path) -> None:
    configuration = {
        "model_name_or_path": world.gpt2, "train_file": world.text, "output_dir": str(tmp_path / "out"),
        "block_size": 16, "max_steps": 2, "evaluation_strategy": "no", "per_gpu_train_batch_size": 4,
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(configuration))
    run(f"clm {tmp_path}/run.json")
    assert results(tmp_path / "out")["eval_loss"] > 0
