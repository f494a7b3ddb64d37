"""Runs that train an adapter: the commands as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from world import World

from lmtrain.cli.main import main
from lmtrain.config.options import ModelOptions
from lmtrain.core.runlog import read_events
from lmtrain.models import load_model

pytest.importorskip("peft")


def run(command: str) -> None:
    assert main(command.split()) == 0


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def pairs(folder: Path, context: str, completion: str) -> Path:
    path = folder / "pairs.jsonl"
    rows = [{"context": context.format(n=n), "completion": completion.format(n=n)} for n in range(300)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_causal_adapter_from_text_to_use(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    out = tmp_path / "out"
    command = (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --output_dir {out} --block_size 32 "
        f"--use_peft --lora_r 4 --lora_target_modules all-linear --learning_rate 1e-2 --num_train_epochs 2 "
        f"--per_device_train_batch_size 4 --logging_steps 5 --precision {precision}"
    )
    run(command)
    said = capsys.readouterr().err
    assert "LoRA, rank 4" in said and "all logits" not in said, "the head is computed where there is a label"
    assert json.loads((out / "decisions.json").read_text())["head"]["choice"] == "predicted positions"
    losses = [event["loss"] for event in read_events(out / "metrics.jsonl") if event["event"] == "train"]
    assert losses[-1] < losses[0] - 1.0
    assert not (out / "config.json").exists() and (out / "tokenizer.json").exists()

    scores = json.loads((out / "eval_results.json").read_text())
    run(f"evaluate --model_name_or_path {out} --validation_file {world.text} --block_size 32 --json")
    again = json.loads(capsys.readouterr().out)["validation"]
    assert again["eval_loss"] == pytest.approx(scores["eval_loss"], abs=0.2), "a part of the same text"
    run(f"generate --model_name_or_path {out} --greedy --max_new_tokens 8 The")
    assert capsys.readouterr().out.startswith("The")
    run(command)
    assert "is finished" in capsys.readouterr().err
    assert main([*command.split(), "--lora_r", "8"]) == 2
    assert "--lora_r was 4 and is now 8" in capsys.readouterr().err


def test_a_masked_adapter(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, text = tmp_path / "out", tmp_path / "uneven.txt"
    text.write_text("".join("A fox." + " It ran." * (n % 4) + "\n" for n in range(300)))
    run(
        f"mlm --model_name_or_path {world.bert} --train_file {text} --line_by_line --max_seq_length 32 "
        f"--use_lora --learning_rate 1e-2 --num_train_epochs 2 --output_dir {out} --logging_steps 10"
    )
    assert "all logits" not in capsys.readouterr().err
    losses = [event["loss"] for event in read_events(out / "metrics.jsonl") if event["event"] == "train"]
    assert losses[-1] < losses[0] - 0.3
    assert not list(out.glob("model*")) and (out / "adapter_config.json").exists()
    decisions = json.loads((out / "decisions.json").read_text())
    assert decisions["head"]["choice"] == "predicted positions" and decisions["packing"]["way"] != "none"
    capsys.readouterr()
    run(f"evaluate --model_name_or_path {out} --validation_file {text} --line_by_line --max_seq_length 32")
    told = capsys.readouterr()
    assert told.out.startswith("validation loss ") and told.out.count("\n") == 1 and "● result" not in told.err
    run(f"generate --model_name_or_path {out} --json [MASK]")


@pytest.mark.parametrize("extra", ["", "--precision bf16 --lora_dropout 0.1"])
def test_a_resumed_run_ends_in_the_same_adapter(world: World, tmp_path: Path, extra: str) -> None:
    def command(folder: Path) -> str:
        return (
            f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --output_dir {folder} --block_size 32 "
            f"--use_peft --lora_r 2 --learning_rate 1e-2 --max_steps 8 --save_steps 4 {extra}"
        )

    run(command(tmp_path / "whole"))
    right = adapter_of(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    part = tmp_path / "part"
    shutil.rmtree(part / "checkpoint-8")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (part / name).unlink()
    (part / "status.json").write_text(json.dumps({"state": "interrupted", "step": 4}))
    run(command(part))
    mine = adapter_of(part)
    assert mine.keys() == right.keys() and all(torch.equal(mine[name], right[name]) for name in right)
    assert any(value.any() for name, value in right.items() if "lora_B" in name)


@pytest.mark.parametrize("command", ["clm", "mlm", "sft"])
def test_tokens_added_to_the_tokenizer_learn_with_the_adapter(world: World, tmp_path: Path, command: str) -> None:
    from transformers import AutoTokenizer

    kind, purpose = ("bert", "mlm") if command == "mlm" else ("gpt2", "clm")
    base = getattr(world, kind)
    tokenizer = AutoTokenizer.from_pretrained(base)
    before = load_model(ModelOptions(base), purpose, None).model
    rows = before.get_input_embeddings().weight.shape[0]
    tokenizer.add_tokens([f"<{n}>" for n in range(rows - len(tokenizer))] + ["<start>", "<stop>"])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    text = tmp_path / "text.txt"
    text.write_text("".join(f"<start> fox number {n} <stop>\n" for n in range(300)))
    if command == "sft":
        text = pairs(tmp_path, "<start> fox number {n}", "<stop>")
    out = tmp_path / "out"
    size = "--block_size 32" if command == "clm" else "--max_seq_length 32"
    run(
        f"{command} --model_name_or_path {base} --tokenizer_name {tmp_path}/tokenizer --train_file {text} {size} "
        f"--output_dir {out} --use_peft --learning_rate 1e-2 --max_steps 12 --save_steps 6 "
        "--validation_split_percentage 0"
    )
    loaded = load_model(ModelOptions(str(out)), purpose, AutoTokenizer.from_pretrained(out))
    embedding = loaded.model.get_input_embeddings().weight
    assert embedding.shape[0] == rows + 2
    mean = before.get_input_embeddings().weight.mean(0)
    moved = (embedding[rows:] - mean).norm(dim=1)
    assert (moved > 0.1).all(), "both tokens are in the text, and both rows left the mean where they began"
    if kind == "gpt2":
        assert torch.equal(embedding[:rows], before.get_input_embeddings().weight), "no other row moved"
        assert loaded.model.get_output_embeddings().weight is embedding
    saved = (out / "adapter_model.safetensors").stat().st_size
    assert saved < 20_000 or kind == "bert", "rows of new tokens, not whole embeddings"
    assert (out / "checkpoint-6" / "adapter_model.safetensors").stat().st_size == saved


def test_merged_at_the_end(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 32 --use_peft "
        "--learning_rate 1e-2 --max_steps 6 --precision bf16"
    )
    run(f"{common} --output_dir {tmp_path}/beside")
    run(f"{common} --output_dir {tmp_path}/merged --merge_lora")
    ids = torch.tensor([[5, 9, 33, 7, 21]])
    with torch.no_grad():
        beside, merged = (
            load_model(ModelOptions(str(tmp_path / name)), "clm", None).model(input_ids=ids).logits
            for name in ("beside", "merged")
        )
    assert (tmp_path / "merged" / "config.json").exists() and not (tmp_path / "merged" / "adapter_config.json").exists()
    torch.testing.assert_close(merged, beside, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("command", ["clm", "sft"])
def test_recomputing_trains_the_same(world: World, tmp_path: Path, command: str) -> None:
    from lmtrain.engine.speed.batch_size import CHECKPOINTING

    given = f"--train_file {world.text} --block_size 32"
    if command == "sft":
        given = f"--train_file {pairs(tmp_path, 'fox number {n}', 'It jumps over {n} dogs.')} --max_seq_length 32"
    for name, extra in (("plain", ""), ("recomputed", f"--{CHECKPOINTING}")):
        run(
            f"{command} --model_name_or_path {world.gpt2} {given} --output_dir {tmp_path}/{name} "
            f"--use_peft --learning_rate 1e-2 --max_steps 4 --precision fp32 {extra}"
        )
    plain, recomputed = adapter_of(tmp_path / "plain"), adapter_of(tmp_path / "recomputed")
    for name, value in plain.items():
        torch.testing.assert_close(recomputed[name], value, rtol=1e-4, atol=1e-6)
    assert any(value.any() for name, value in plain.items() if "lora_B" in name)


def test_check_and_profile_say_what_is_trained(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 32 --use_peft"
    run(f"check {common} --output_dir {tmp_path}/out --max_steps 10 --json")
    plan = json.loads(capsys.readouterr().out)
    assert 0 < plan["trained"] < plan["parameters"] / 10
    run(f"profile {common} --steps 2")
    assert "LoRA, rank 8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "flag", "text"),
    [
        ("--lora_r 4", "--lora_r", "add --use_peft"),
        ("--merge_lora", "--merge_lora", "add --use_peft"),
        ("--use_peft --lora_r 0", "--lora_r", "leave out --use_peft"),
        ("--use_peft --lora_target_modules q_proj", "--lora_target_modules", "transformer.h.*.attn.c_attn"),
        ("--use_peft --lora_target_modules all-linear c_attn", "--lora_target_modules", "stands alone"),
    ],
)
def test_what_is_refused(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, flag: str, text: str
) -> None:
    command = f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --output_dir {tmp_path}/out {words}"
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert f"  {flag} " in said and text in said and "1 thing" in said
    assert not (tmp_path / "out").exists()


def test_a_new_model_has_nothing_to_adapt(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"clm --model_type gpt2 --tokenizer_name {world.gpt2} --train_file {world.text} --use_peft"
    assert main([*command.split(), "--output_dir", str(tmp_path / "out")]) == 2
    assert "name a checkpoint" in capsys.readouterr().err


def test_the_options_of_a_run_without_an_adapter_are_read_back(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from parsing import parse_training

    out = tmp_path / "out"
    run(f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --output_dir {out} --max_steps 1")
    (tmp_path / "run.json").write_text(json.dumps(json.loads((out / "run.json").read_text())["options"]))
    assert not parse_training("clm", ["--config", str(tmp_path / "run.json")]).lora.use_peft
