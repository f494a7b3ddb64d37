"""The course's chapter 7.6 as commands: tokenizer, size, chunking, key tokens; and what stands in their way."""

from __future__ import annotations

import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from world import World

from lmtrain.cli.main import main

CODE = [part for part in (inspect.getsource(inspect) + inspect.getsource(textwrap)).split("\n\n\n") if part.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Functions as documents, and a tokenizer of them."""
    folder = tmp_path_factory.mktemp("scratch")
    (folder / "code.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in CODE))
    words = ["tokenizer", "--source", folder / "code.jsonl", "--vocab_size", "600", "--model_max_length", "64"]
    assert main([*map(str, words), "--output_dir", str(folder / "tok")]) == 0
    return folder


def clm(folder: Path, out: Path, *words: Any) -> int:
    command = [
        "clm", "--train_file", folder / "code.jsonl", "--tokenizer_name", folder / "tok", "--model_type", "gpt2",
        "--model_size", "200k", "--output_dir", out, "--use_cpu", "--max_steps", 4, "--per_device_train_batch_size", 4,
        "--logging_steps", 1, "--save_steps", 2, "--report_to", "none", "--precision", "fp32", "--compile", "off",
        *words,
    ]  # fmt: skip
    return main(list(map(str, command)))


def losses(run: Path) -> list[float]:
    return [
        line["loss"] for line in json.loads((run / "trainer_state.json").read_text())["log_history"] if "loss" in line
    ]


def test_the_chapter_in_two_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    sizes = ["--block_size", 16, "--chunking", "documents", "--validation_split_percentage", 30, "--do_train"]
    words = [*sizes, "--do_eval", "--key_tokens", "self,zzqqj", "def"]
    assert clm(folder, run, *words) == 0
    said = capsys.readouterr().err
    assert "left out, since they are not one token: zzqqj" in said
    assert "--model_size 200k: " in said and "64 positions, as its tokenizer has them" in said
    assert "documents drops " in said and "; blocks would drop " in said
    assert " · with key tokens (" in said and " · without key tokens (" in said, said
    config = json.loads((run / "config.json").read_text())
    assert (config["vocab_size"], config["n_positions"], config["eos_token_id"]) == (600, 64, 0)
    results = json.loads((run / "all_results.json").read_text())
    tokens = results["eval_tokens_with_keys"] + results["eval_tokens_without_keys"]
    assert tokens == results["eval_tokens"]
    mean = sum(results[f"eval_loss_{n}_keys"] * results[f"eval_tokens_{n}_keys"] for n in ("with", "without")) / tokens
    assert mean == pytest.approx(results["eval_loss"], rel=1e-6)
    options = json.loads((run / "run.json").read_text())["options"]
    assert options["key_tokens"] == ["self,zzqqj", "def"] and options["chunking"] == "documents"

    held_out = ["--validation_file", str(folder / "held-out.txt"), "--block_size", "16", "--use_cpu", "--json"]
    (folder / "held-out.txt").write_text("\n\n\n".join(CODE[:6]))
    words_again = ["evaluate", "--model_name_or_path", str(run), *held_out, "--key_tokens", "self,zzqqj", "def"]
    capsys.readouterr()
    assert main(words_again) == 0
    out, said = capsys.readouterr()
    assert "examples with these are also scored apart: self (" in said and " · with key tokens (" in said
    apart = json.loads(out)["validation"]
    assert main(words_again[:-3]) == 0
    whole = json.loads(capsys.readouterr().out)["validation"]
    assert whole["eval_loss"] == pytest.approx(apart["eval_loss"], rel=1e-8), "no weights, but for rounding"
    assert "eval_loss_with_keys" not in whole
    counts = [apart[f"eval_tokens_{name}_keys"] for name in ("with", "without")]
    assert min(counts) > 0 and sum(counts) == apart["eval_tokens"]
    sums = [apart[f"eval_loss_{name}_keys"] * apart[f"eval_tokens_{name}_keys"] for name in ("with", "without")]
    assert sum(sums) / sum(counts) == pytest.approx(whole["eval_loss"], rel=1e-6)

    plain = tmp_path / "plain"
    assert clm(folder, plain, *sizes) == 0
    assert sum(losses(run)) > 1.1 * sum(losses(plain)), "the training loss is the weighted one"
    capsys.readouterr()
    assert clm(folder, run, *words, "--key_token_alpha", 2) == 2, "another weight is another run"
    assert "--key_token_alpha was 1.0 and is now 2.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--key_tokens", "zzqqj,qqzzj"], "none of them is a single token"),
        (["--key_tokens", ","], "names no word"),
        (["--key_token_alpha", "2"], "name some with --key_tokens"),
        (["--key_tokens", "self", "--key_token_alpha", "0"], "--key_token_alpha"),
        (["--model_size", "big"], "no number of parameters"),
        (["--model_size", "20k"], "too few with this vocabulary"),
        (["--chunking", "documents", "--isolate_documents"], "each window is of one document already"),
        (["--chunking", "documents", "--compat", "run_clm"], "give only one of --chunking and --compat"),
        (["--chunking", "documents", "--append_eos", "true"], "windows of single documents have no end-of-text"),
        (["--chunking", "paragraphs"], "--chunking"),
    ],
)
def test_what_cannot_be(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert clm(folder, tmp_path / "run", "--block_size", 32, *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_masked_training_has_neither(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--train_file", str(folder / "code.jsonl"), "--model_name_or_path", "x", "--output_dir", "y"]
    assert main(["mlm", *words, "--key_tokens", "self", "--chunking", "documents"]) == 2
    said = capsys.readouterr().err
    assert "--key_tokens" in said and "--chunking" in said


def test_a_masked_model_is_not_evaluated_with_key_tokens(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--model_name_or_path", world.bert, "--validation_file", world.text, "--use_cpu"]
    assert main([*words, "--key_tokens", "fox", "--output_dir", str(tmp_path / "out")]) == 2
    assert "--key_tokens   tells blocks with certain words apart for causal models" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_prepare_accounts_for_both_ways(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "--train_file", folder / "code.jsonl", "--tokenizer_name", folder / "tok", "--block_size", 32]
    assert main([*map(str, words), "--json"]) == 0
    split = json.loads(capsys.readouterr().out)["splits"]["train"]
    ways = split["chunking"]
    assert ways["taken"] == "blocks" and ways["blocks"]["dropped"] == split["dropped"] < 32
    assert ways["documents"]["dropped"] > 32
