"""Every export loads into the pipelines of transformers, from its folder alone, and answers as our own commands do."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline
from world import World

from lmtrain.cli.main import main
from lmtrain.config.options import ModelOptions
from lmtrain.generate import Settings, complete, fill_mask
from lmtrain.models import load_model, load_tokenizer
from tiny_models import checkpoint

SHORT = (
    "--max_steps 4 --learning_rate 1e-2 --use_cpu --precision fp32 --skip_check --save_strategy no --do_train "
    "--per_device_train_batch_size 4"
)
PROMPTS = ["The quick fox", "dog", "The slow fox number 7"]


def run(command: str) -> None:
    assert main(command.split()) == 0


def trained(world: World, folder: Path, what: str, kind: str) -> Path:
    """A run, or what ``lmtrain export`` made of it."""
    model = {"gpt2": world.gpt2, "bert": world.bert}.get(kind) or checkpoint(kind, folder / "start")
    out = folder / "run"
    data, block = world.text, "--max_seq_length 32"
    command = "mlm" if what.startswith("mlm") else "clm"
    if command == "clm":
        block = "--block_size 32"
    if what == "sft":
        pairs = [{"context": f"fox {n}", "completion": f"jumps over {n} dogs"} for n in range(60)]
        (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        command, data, block = "sft", str(folder / "pairs.jsonl"), "--max_seq_length 32"
    if what == "gpt2-ft":
        return from_gpt2_ft(folder, str(model))
    adapter = "--use_peft --lora_r 4" if "adapter" in what or "merged" in what else ""
    run(f"{command} --model_name_or_path {model} --train_file {data} --output_dir {out} {block} {SHORT} {adapter}")
    if "merged" in what:
        run(f"export {out} {folder / 'merged'} --to merged")
        return folder / "merged"
    return out


def from_gpt2_ft(folder: Path, model: str) -> Path:
    """What ``lmtrain gpt2-ft`` leaves, whole: its checkpoint of LoRA tensors, merged into the model."""
    tokenizer = load_tokenizer(ModelOptions(model_name_or_path=model), "clm")
    ids = [{"context": tokenizer(f"fox {n}")["input_ids"], "completion": tokenizer(" jumps")["input_ids"]}
           for n in range(8)]  # fmt: skip
    (folder / "ids.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in ids))
    files = f"--train_data {folder}/ids.jsonl --valid_data {folder}/ids.jsonl --work_dir {folder}/ft --seq_len 40"
    run(f"gpt2-ft --model_card {model} {files} --lora_dim 2 --lora_alpha 8 --lr 0.01 --max_epoch 2")
    (last,) = sorted((folder / "ft").glob("model.*.pt"), key=lambda path: int(path.suffixes[0][1:]))[-1:]
    run(f"export {last} {folder / 'merged'} --to merged --base {model} --lora_alpha 8")
    return folder / "merged"


def ours(folder: Path) -> tuple[Any, Any]:
    options = ModelOptions(model_name_or_path=str(folder))
    purpose = "mlm" if "mask_token" in (folder / "tokenizer_config.json").read_text() else "clm"
    tokenizer = load_tokenizer(options, purpose)
    return load_model(options, purpose, tokenizer).model, tokenizer


@pytest.mark.parametrize(
    ("what", "kind"),
    [*product(("clm", "adapter", "merged", "sft"), ("gpt2", "llama")), ("clm", "mistral"), ("gpt2-ft", "gpt2")],
)
def test_text_generation(world: World, tmp_path: Path, what: str, kind: str) -> None:
    if what in ("adapter", "merged"):
        pytest.importorskip("peft")
    folder = trained(world, tmp_path, what, kind)
    pipe = pipeline("text-generation", model=str(folder))
    assert pipe.tokenizer.eos_token_id == pipe.model.generation_config.eos_token_id == 0
    found = pipe(PROMPTS, max_new_tokens=8, do_sample=False)
    model, tokenizer = ours(folder)
    expected = complete(model, tokenizer, PROMPTS, Settings(max_new_tokens=8, do_sample=False))
    assert [answer[0]["generated_text"] for answer in found] == [c.prompt + c.text for c in expected]
    # Of an adapter the library takes the base's tokenizer, which nothing of ours has written.
    batched = pipeline("text-generation", model=str(folder), tokenizer=str(folder))
    for batch_size in (2, 3):
        assert batched(PROMPTS, max_new_tokens=8, do_sample=False, batch_size=batch_size) == found
    assert (tokenizer.pad_token_id, tokenizer.model_max_length, len(tokenizer)) == (0, 48, 300), "no id is new"
    assert model.generation_config.pad_token_id == 0
    drawn = pipe("The", max_new_tokens=4, do_sample=True, num_return_sequences=2)
    assert len(drawn) == 2 and all(one["generated_text"].startswith("The") for one in drawn)


@pytest.mark.parametrize(
    ("what", "kind"), [*product(("mlm", "mlm adapter", "mlm merged"), ("bert", "roberta")), ("mlm", "modernbert")]
)
def test_fill_mask(world: World, tmp_path: Path, what: str, kind: str) -> None:
    if what != "mlm":
        pytest.importorskip("peft")
    folder = trained(world, tmp_path, what, kind)
    pipe = pipeline("fill-mask", model=str(folder))
    mask = pipe.tokenizer.mask_token
    texts = [f"The {mask} fox", f"{mask} dog {mask}", f"The slow {mask} number 7 jumps over the lazy {mask}."]
    model, tokenizer = ours(folder)
    expected = fill_mask(model, tokenizer, texts, 3)
    for batch_size in (1, 3):
        for answer, wanted in zip(pipe(texts, top_k=3, batch_size=batch_size), expected, strict=True):
            by_mask = [answer] if len(wanted.masks) == 1 else answer
            assert [[c["token"] for c in one] for one in by_mask] == [[f.id for f in m] for m in wanted.masks]
            scores = [c["score"] for one in by_mask for c in one]
            assert scores == pytest.approx([f.probability for m in wanted.masks for f in m], rel=1e-4)
