"""Old GPT-2 files: every tensor finds its place, or nothing is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2LMHeadModel

import tiny
from lmtrain.core.errors import UserError
from lmtrain.models.loading.gpt2_checkpoint import SIZES, fill, gpt2_config, read_tensors, today

IDS = torch.tensor([[5, 9, 33, 7, 21, 40, 12, 8]])


def loaded(path: Path) -> Any:
    """A GPT-2 of the tests' shape and other weights, with those of a file."""
    tensors = today(read_tensors(path, "--init_checkpoint"))
    model = GPT2LMHeadModel(tiny.gpt2().config)
    fill(model, tensors, str(path), "--init_checkpoint")
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def body() -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in tiny.gpt2().transformer.state_dict().items()}


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As OpenAI's own names are written: g and b of a norm, w and b of a product."""
    renamed = {}
    for name, value in state.items():
        if ".ln_" in f".{name}":
            name = name.replace(".weight", ".g").replace(".bias", ".b")
        elif "c_" in name:
            name = name.replace(".weight", ".w").replace(".bias", ".b")
        renamed[name] = value
    return renamed


def with_buffers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    masks = {f"h.{n}.attn.bias": torch.ones(1, 1, 40, 40).tril() for n in range(2)}
    return {**state, **masks, "h.0.attn.masked_bias": torch.tensor(-1e4)}


FORMS = {
    "as the first pytorch_model.bin": with_buffers,
    "with transformer. in front": lambda s: {f"transformer.{k}": v for k, v in with_buffers(s).items()},
    "with a tied head": lambda s: {**{f"transformer.{k}": v for k, v in s.items()}, "lm_head.weight": s["wte.weight"]},
    "from DistributedDataParallel": lambda s: {
        "module.lm_head.decoder.weight": s["wte.weight"],
        **{f"module.transformer.{k}": v for k, v in s.items()},
    },
    "under OpenAI's names": old_names,
    "in half precision": lambda s: {k: v.half().float().half() for k, v in s.items()},
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_whole(tmp_path: Path, form: str, wrapped: bool) -> None:
    state = FORMS[form](body())
    torch.save({"model_state_dict": state} if wrapped else state, tmp_path / "model.bin")
    model = loaded(tmp_path / "model.bin")
    right = tiny.gpt2() if "half" not in form else tiny.gpt2().half().float()
    assert torch.equal(logits(model), logits(right))
    assert model.lm_head.weight is model.transformer.wte.weight and model.dtype == torch.float32


def test_safetensors_load_too(tmp_path: Path) -> None:
    save_file(with_buffers(body()), tmp_path / "model.safetensors")
    model = loaded(tmp_path / "model.safetensors")
    assert torch.equal(logits(model), logits(tiny.gpt2()))


def without(*names: str) -> Any:
    return lambda s: {k: v for k, v in s.items() if k not in names}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("h.1.ln_2.bias", "wpe.weight"), ["2 tensors (h.1.ln_2.bias, wpe.weight) missing"]),
        (lambda s: {f"gpt2.{k}": v for k, v in s.items()}, ["28 tensors (h.0.attn", "missing", "without a place"]),
        (lambda s: {**s, "h.2.ln_1.weight": torch.ones(32)}, ["1 tensor (h.2.ln_1.weight) without a place"]),
        (lambda s: {**s, "wpe.weight": torch.ones(48, 32)}, ["wpe.weight is 48×32 there and 40×32 in the model"]),
        (lambda s: {**s, "lm_head.weight": s["wte.weight"] + 1}, ["an output head of its own"]),
        (lambda s: {**s, "h.0.attn.c_attn.lora_A": torch.ones(8, 32)}, ["lora_A) without a place"]),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path: Path, change: Any, words: list[str]) -> None:
    torch.save(change(body()), tmp_path / "model.pt")
    with pytest.raises(UserError) as caught:
        loaded(tmp_path / "model.pt")
    for word in words:
        assert word in str(caught.value)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "harm",))

    torch.save({"wte.weight": Harm()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"no file of weights that torch\.save wrote, or holds more than tensors$"):
        loaded(tmp_path / "model.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [torch.ones(3), {"step": 5}, [1, 2]])
def test_files_of_something_else(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(UserError, match="something other than tensors"):
        loaded(tmp_path / "model.pt")


def test_a_file_that_is_not_there_and_a_card_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        loaded(tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"gpt2\.sm, gpt2\.md, gpt2\.lg"):
        gpt2_config("gpt2.xl")


@pytest.mark.parametrize(("card", "millions"), [("gpt2.sm", 124.4), ("gpt2.md", 354.8), ("gpt2.lg", 774.0)])
def test_the_sizes_are_the_published_ones(card: str, millions: float) -> None:
    """Radford et al. 2019 count 117, 345 and 762 M, without the embedding's second use; these are the files' own."""
    with torch.device("meta"):
        model = GPT2LMHeadModel(gpt2_config(card))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions
    assert (model.config.n_layer, model.config.n_embd, model.config.n_head) == SIZES[card]
    assert not any(p for name, p in model.config.to_dict().items() if name.endswith("_pdrop"))
