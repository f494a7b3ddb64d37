"""Samples during training: what they say, where they stand, and that the training does not notice them."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from forked import run_ranks
from lmtrain.cli.main import main
from lmtrain.config.options import ModelOptions
from lmtrain.core.console import silent
from lmtrain.core.errors import UserError
from lmtrain.core.runlog import read_events
from lmtrain.engine.assembly import train
from lmtrain.generate import Settings, complete, fill_mask
from lmtrain.models import load_model, load_tokenizer
from lmtrain.recipes.samples import sampling
from parsing import parse_training
from tiny_models import checkpoint

TEXT = "".join(f"The {w} fox number {n} jumps over the lazy dog.\n" for n in range(120) for w in ("quick", "slow"))
PAIRS = "".join(
    json.dumps({"context": f"colour of {n} foxes", "completion": f"they are {w}"}) + "\n"
    for n in range(60) for w in ("red", "brown")
)  # fmt: skip
PROMPTS = ("The quick fox", "number")
SHORT = (
    "--max_steps 6 --eval_strategy steps --eval_steps 2 --logging_steps 1 --learning_rate 3e-3 --use_cpu "
    "--precision fp32 --skip_check --save_strategy no --per_device_train_batch_size 4"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each kind, with the dropout that they come with, and texts."""
    root = tmp_path_factory.mktemp("place")
    for kind in ("gpt2", "bert", "llama"):
        checkpoint(kind, root / kind)
    (root / "fox.txt").write_text(TEXT)
    (root / "pairs.jsonl").write_text(PAIRS)
    return root


def command(place: Path, name: str, kind: str, out: Path, more: str = "") -> list[str]:
    data = "pairs.jsonl" if name == "sft" else "fox.txt"
    block = "--block_size 32" if name == "clm" else "--max_seq_length 32"
    words = f"--model_name_or_path {place / kind} --train_file {place / data} --output_dir {out} {block} {SHORT} {more}"
    return words.split()


def trained(name: str, words: list[str], *prompts: str) -> list[dict[str, Any]]:
    """The events of a run with these sample prompts."""
    resolved = parse_training(name, [*words, *(["--sample_prompts", *prompts] if prompts else [])])
    train(resolved, look=sampling(resolved))
    assert resolved.output_dir
    return list(read_events(Path(resolved.output_dir) / "metrics.jsonl"))


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def after_it(out: Path, prompts: list[str], settings: Settings, **more: Any) -> list[str]:
    """What the model in the run's folder writes."""
    options = ModelOptions(model_name_or_path=str(out))
    tokenizer = load_tokenizer(options, "clm")
    model = load_model(options, "clm", tokenizer).model
    if encode := more.get("encode"):
        more["encode"] = encode(tokenizer)
    return [c.text for c in complete(model, tokenizer, prompts, settings, 48, **more)]


def test_the_same_prompts_at_each_evaluation_and_the_training_to_the_bit_as_without(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With dropout, in whose place random numbers would be missed, and with samples that are drawn."""
    without = trained("clm", command(place, "clm", "gpt2", tmp_path / "without"))
    assert not of(without, "sample")
    capsys.readouterr()
    more = "--sample_temperature 0.7 --sample_max_new_tokens 9"
    events = trained("clm", command(place, "clm", "gpt2", tmp_path / "with", more), *PROMPTS)
    found = of(events, "sample")
    assert [(e["step"], e["index"], e["prompt"]) for e in found] == [
        (step, index, prompt) for step in (2, 4, 6) for index, prompt in enumerate(PROMPTS)
    ]
    assert all(isinstance(e["completion"], str) and 1 <= e["tokens"] <= 9 for e in found)
    for name in ("loss", "grad_norm"):
        assert [e[name] for e in of(events, "train")] == [e[name] for e in of(without, "train")]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "without")]
    assert weights[0] == weights[1]
    settings = Settings(max_new_tokens=9, temperature=0.7, top_k=0, seed=42)
    assert [e["completion"] for e in found[-2:]] == after_it(tmp_path / "with", list(PROMPTS), settings)
    said = capsys.readouterr().err
    assert said.count("● sample     step ") == 3 and "The quick fox ▸ " in said


def test_a_masked_model_fills_masks(place: Path, tmp_path: Path) -> None:
    prompts = ["the [MASK] fox", "a [MASK] and [MASK]"]
    found = of(trained("mlm", command(place, "mlm", "bert", tmp_path), *prompts), "sample")
    assert [(e["step"], e["index"]) for e in found] == [(step, index) for step in (2, 4, 6) for index in (0, 1)]
    options = ModelOptions(model_name_or_path=str(tmp_path))
    tokenizer = load_tokenizer(options, "mlm")
    expected = fill_mask(load_model(options, "mlm", tokenizer).model, tokenizer, prompts, 3)
    for event, wanted in zip(found[-2:], expected, strict=True):
        assert (event["prompt"], event["completion"]) == (wanted.text, wanted.filled)
        assert [[f["token"] for f in mask] for mask in event["masks"]] == [[f.token for f in m] for m in wanted.masks]
        assert [len(mask) for mask in event["masks"]] == [3] * wanted.text.count("[MASK]")


@pytest.mark.parametrize("add_bos", [False, True])
def test_contexts_stand_before_the_model_as_in_training(place: Path, tmp_path: Path, add_bos: bool) -> None:
    words = command(place, "sft", "llama", tmp_path / "out", "--add_bos" if add_bos else "")
    found = of(trained("sft", words, "colour of 3 foxes"), "sample")

    def encode(tokenizer: Any) -> Any:
        return lambda prompt: tokenizer(prompt).input_ids + ([tokenizer.bos_token_id] if add_bos else [])

    settings = Settings(do_sample=False)
    expected = after_it(tmp_path / "out", ["colour of 3 foxes"], settings, encode=encode)
    assert [e["completion"] for e in found[-1:]] == expected
    assert expected != after_it(tmp_path / "out", ["colour of 3 foxes"], settings) or not add_bos


def test_chats_are_asked_by_their_template(place: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    checkpoint("llama", model)
    template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    (model / "chat_template.jinja").write_text(template + "{% if add_generation_prompt %}<assistant> {% endif %}")
    chats = [{"messages": [{"role": "user", "content": f"a {n}"}, {"role": "assistant", "content": "yes"}]}
             for n in range(60)]  # fmt: skip
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    out = tmp_path / "out"
    words = f"--model_name_or_path {model} --train_file {tmp_path / 'chats.jsonl'} --output_dir {out} {SHORT}"
    found = of(trained("sft", [*words.split(), "--max_seq_length", "32"], "a 7"), "sample")
    assert {e["prompt"] for e in found} == {"a 7"}
    expected = after_it(out, ["<user> a 7\n<assistant> "], Settings(do_sample=False))
    assert found[-1]["completion"] == expected[0]


def test_an_adapter_takes_part(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    words = command(place, "clm", "gpt2", tmp_path / "out", "--use_peft --lora_r 4 --lora_dropout 0.2")
    found = of(trained("clm", words, *PROMPTS), "sample")
    assert [e["completion"] for e in found[-2:]] == after_it(tmp_path / "out", list(PROMPTS), Settings(do_sample=False))
    assert len({e["completion"] for e in found}) > 2, "it learns"


def test_a_run_that_is_evaluated_at_its_end_is_looked_at_there(place: Path, tmp_path: Path) -> None:
    words = command(place, "clm", "gpt2", tmp_path / "out")
    words[words.index("--eval_strategy") + 1] = "no"
    del words[words.index("--eval_steps") : words.index("--eval_steps") + 2]
    assert [e["step"] for e in of(trained("clm", words, *PROMPTS), "sample")] == [6, 6]


def test_looking_is_no_time_of_training(place: Path, tmp_path: Path) -> None:
    slept: list[float] = []

    def look(model: Any) -> list[dict[str, Any]]:
        began = time.monotonic()
        time.sleep(0.4)
        slept.append(time.monotonic() - began)
        return []

    resolved = parse_training("clm", command(place, "clm", "gpt2", tmp_path / "out"))
    outcome = train(resolved, look=lambda parts: look, say=silent)
    [end] = of(list(read_events(tmp_path / "out" / "metrics.jsonl")), "trained")
    seconds = end["tokens"] / outcome.metrics["train_tokens_per_second"]
    assert len(slept) == 3 and seconds <= outcome.metrics["train_runtime"] - sum(slept) + 0.1


@pytest.mark.parametrize(
    ("name", "kind", "prompts", "words"),
    [
        ("clm", "gpt2", ["fine", "a fox " * 60], "prompt 2 ('a fox a fox"),
        ("mlm", "bert", ["no gap"], "nothing to fill in 'no gap'"),
        ("clm", "gpt2", ["a\udcff"], "is not UTF-8"),
    ],
)
def test_prompts_that_cannot_be_answered_end_it_before_anything_is_written(
    place: Path, tmp_path: Path, name: str, kind: str, prompts: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words.replace("(", r"\(")) as caught:
        trained(name, command(place, name, kind, tmp_path / "out"), *prompts)
    assert {problem.flag for problem in caught.value.problems} == {"--sample_prompts"}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--validation_split_percentage 0 --eval_strategy no", "add --eval_strategy steps"),
        ("--fsdp full_shard", "--fsdp divides it"),
        ("--do_eval", "nothing is trained here"),
        ("--sample_temperature -1", "--sample_temperature"),
    ],
)
def test_options_without_sense(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, words: str
) -> None:
    line = f"clm --model_name_or_path {place / 'gpt2'} --train_file {place / 'fox.txt'} --output_dir {tmp_path / 'o'}"
    assert main([*line.split(), *more.split(), "--sample_prompts", "a"]) == 2
    assert words in capsys.readouterr().err


def test_prompts_of_a_file_come_behind_the_others(place: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("from\na file\n")
    words = command(place, "clm", "gpt2", tmp_path / "out", f"--sample_prompts_file {tmp_path / 'p.txt'}")
    assert [e["prompt"] for e in of(trained("clm", words, "given"), "sample")][:3] == ["given", "from", "a file"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo needs libuv there")
def test_of_two_processes_the_first_looks_and_the_other_waits_for_it(place: Path, tmp_path: Path) -> None:
    words = command(place, "clm", "gpt2", tmp_path / "out", "--sample_max_new_tokens 20")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ends = run_ranks(["-m", "lmtrain", "clm", *words, "--sample_prompts", *PROMPTS], 2, env=environment)
    assert not any(end.returncode for end in ends), ends[0].stderr[-3000:]
    found = of(list(read_events(tmp_path / "out" / "metrics.jsonl")), "sample")
    assert [(e["step"], e["index"]) for e in found] == [(step, index) for step in (2, 4, 6) for index in (0, 1)]
    assert "".join(end.stderr for end in ends).count("● sample") == 3
    expected = after_it(tmp_path / "out", list(PROMPTS), Settings(do_sample=False, max_new_tokens=20))
    assert [e["completion"] for e in found[-2:]] == expected
