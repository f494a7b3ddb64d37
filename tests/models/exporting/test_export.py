"""What a run leaves loads again, whole, whatever was there before and whenever the save broke off."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from lmtrain.models import save_model
from no_room import files_of_at_most
from tiny_models import PURPOSE, make


def logits(model, ids):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.parametrize("kind", sorted(PURPOSE))
def test_what_is_saved_loads_with_the_library_alone_and_computes_the_same(tmp_path, kind):
    model, tokenizer = make(kind, tmp_path / "t")
    files = save_model(model, tokenizer, str(tmp_path / "run"))
    auto = AutoModelForCausalLM if PURPOSE[kind] == "clm" else AutoModelForMaskedLM
    ids = torch.tensor([tokenizer("the fox").input_ids])
    assert torch.equal(logits(auto.from_pretrained(tmp_path / "run"), ids), logits(model, ids))
    again = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert again("the fox, é").input_ids == tokenizer("the fox, é").input_ids
    pads = {} if tokenizer.pad_token else {"pad_token": "<|endoftext|>"}  # which batches in pipelines need
    assert again.special_tokens_map == {**tokenizer.special_tokens_map, **pads}
    assert again.model_max_length == 48 and len(again) == len(tokenizer)
    assert tokenizer.model_max_length > 10**20 and (not pads or tokenizer.pad_token is None), "as it was"
    assert files[-1].name == "config.json"
    assert sorted(p for p in (tmp_path / "run").iterdir()) == sorted(files)


def test_other_files_stay_and_weights_of_an_earlier_model_go(tmp_path):
    model, tokenizer = make("gpt2", tmp_path / "t")
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / ".model.dead.tmp").mkdir()
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        (tmp_path / name).write_text("old")
    save_model(model, tokenizer, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"metrics.jsonl", "checkpoint-3", "model.safetensors"} <= names
    assert not {n for n in names if n.startswith(("model-", "model.safetensors.index", "pytorch", "."))}
    AutoModelForCausalLM.from_pretrained(tmp_path)


def _full(tokenizer: Any, *_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full_for_tokenizers(tokenizer: Any, *_: object, **__: object) -> None:
    """Of its own it raises a bare ``Exception``."""
    tokenizer.backend_tokenizer.save("/dev/full")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's own")
@pytest.mark.parametrize("full", [_full, _full_for_tokenizers])
def test_a_full_disk_leaves_the_earlier_model_and_no_scratch(tmp_path, monkeypatch, full):
    """The disk is full when the tokenizer is to be written: after the weights, before anything was moved."""
    old, tokenizer = make("gpt2", tmp_path / "t", seed=1)
    run = tmp_path / "run"
    save_model(old, tokenizer, run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    new, _ = make("gpt2", tmp_path / "t", seed=2)
    with files_of_at_most(10_000), pytest.raises(OSError, match="File too large"):
        save_model(new, tokenizer, run)  # the weights, whose library has an error of its own
    monkeypatch.setattr(type(tokenizer), "save_pretrained", full)
    with pytest.raises(OSError, match="No space left") as failed:
        save_model(new, tokenizer, run)
    assert failed.value.errno == errno.ENOSPC
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize("moves", range(5))
def test_broken_off_between_two_moves_no_mixture_of_models_can_be_loaded(tmp_path, monkeypatch, moves):
    old, tokenizer = make("gpt2", tmp_path / "t", seed=1)
    new, _ = make("gpt2", tmp_path / "t", seed=2)
    run = tmp_path / "run"
    count = len(save_model(old, tokenizer, run))
    replace, done = Path.replace, []

    def replace_until(self: Path, target: Path) -> Path:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_until)
    if moves < count:
        with pytest.raises(KeyboardInterrupt):
            save_model(new, tokenizer, run)
        monkeypatch.undo()
        with pytest.raises((OSError, ValueError)):
            AutoModelForCausalLM.from_pretrained(run)
    save_model(new, tokenizer, run)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(run), ids), logits(new, ids))


def test_a_large_model_in_shards_replaces_a_single_file(tmp_path, monkeypatch):
    model, tokenizer = make("gpt2", tmp_path / "t")
    save_model(model, tokenizer, tmp_path / "run")
    whole = type(model).save_pretrained

    def in_shards(self: object, folder: Path, **options: object) -> None:
        whole(self, folder, max_shard_size="20KB", **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "save_pretrained", in_shards)
        save_model(model, tokenizer, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert "model.safetensors" not in names and "model.safetensors.index.json" in names
    ids = torch.tensor([[1, 2, 3]])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    assert torch.equal(logits(loaded, ids), logits(model, ids))
