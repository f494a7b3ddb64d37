"""LoRA on GPT-2's query and value is what loralib computes and trains, and its files go both ways."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from lmtrain.config.adapter import LoraOptions
from lmtrain.core.errors import UserError
from lmtrain.models.adapters.lora import adapt, trained_line
from lmtrain.models.adapters.loralib import (
    LoralibFile,
    adapter_of,
    loralib_pairs,
    read_loralib,
    weights_of,
    write_loralib,
)
from lmtrain.models.adapters.merged_lora import adapted_attention, merged_lora, sizes

pytest.importorskip("peft")

R, ALPHA, WIDTH = 4, 32, 32
IDS = torch.tensor([[5, 9, 33, 7, 21, 40, 12, 8], [6, 60, 11, 11, 54, 30, 29, 18]])


def ours(seed: int = 5, dropout: float = 0.0) -> Any:
    """GPT-2 with an adapter whose B is no longer zero."""
    model = merged_lora(tiny.gpt2(), R, ALPHA, dropout)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in adapted_attention(model):
            layer.lora_A["default"].weight.normal_(std=0.2, generator=generator)
            b = layer.lora_B["default"]
            b.weight.copy_(torch.randn(b.weight.shape, generator=generator) * b.blocks * 0.05)
    return model


def theirs(model: Any) -> tuple[nn.Module, list[Any]]:
    """The same model with loralib's own layers, and those layers."""
    loralib: Any = pytest.importorskip("loralib")
    other, layers = tiny.gpt2(), []
    for block, mine in zip(other.transformer.h, adapted_attention(model), strict=True):
        layer = loralib.MergedLinear(
            WIDTH, 3 * WIDTH, r=R, lora_alpha=ALPHA, enable_lora=[True, False, True], fan_in_fan_out=True,
            merge_weights=False,
        )  # fmt: skip
        with torch.no_grad():
            layer.weight.copy_(block.attn.c_attn.weight)
            layer.bias.copy_(block.attn.c_attn.bias)
            layer.lora_A.copy_(mine.lora_A["default"].weight)
            b = mine.lora_B["default"].weight
            layer.lora_B.copy_(torch.cat([b[:WIDTH, :R], b[2 * WIDTH :, R:]]))
        block.attn.c_attn = layer
        layers.append(layer)
    loralib.mark_only_lora_as_trainable(other)
    return other, layers


def loss(model: Any) -> torch.Tensor:
    return model(input_ids=IDS, labels=IDS).loss


def in_their_layout(b: torch.Tensor) -> torch.Tensor:
    return torch.cat([b[:WIDTH, :R], b[2 * WIDTH :, R:]])


def test_values_and_every_gradient_are_loralibs() -> None:
    mine = ours().train()
    other, layers = theirs(mine)
    right, value = loss(other.train()), loss(mine)
    torch.testing.assert_close(value, right, rtol=1e-5, atol=1e-5)
    right.backward()
    value.backward()
    trained = [name for name, weight in mine.named_parameters() if weight.grad is not None]
    assert len(trained) == 2 * len(layers) and all("lora_" in name for name in trained)
    for layer, theirs_ in zip(adapted_attention(mine), layers, strict=True):
        torch.testing.assert_close(layer.lora_A["default"].weight.grad, theirs_.lora_A.grad, rtol=1e-5, atol=1e-5)
        b = layer.lora_B["default"].weight.grad
        torch.testing.assert_close(in_their_layout(b), theirs_.lora_B.grad, rtol=1e-5, atol=1e-5)
        assert theirs_.lora_B.grad.abs().max() > 1e-3, "gradients large enough that a mistake would show"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_is_loralibs_too_and_keeps_the_zeros(precision: str) -> None:
    """Two micro-batches a step, clipping that bites, weight decay: what could fill a block or feel it."""
    mine = ours().train()
    other, layers = theirs(mine)
    other.train()
    steps = []
    for model in (mine, other):
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1)
        norms = []
        for _ in range(4):
            for rows in (IDS[:1], IDS[1:]):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    (model(input_ids=rows, labels=rows).loss / 2).backward()
            norms.append(torch.nn.utils.clip_grad_norm_(trained, 0.1))
            optimizer.step()
            optimizer.zero_grad()
        steps.append(torch.stack(norms))
    assert (steps[0] > 0.1).all()
    for layer, theirs_ in zip(adapted_attention(mine), layers, strict=True):
        b = layer.lora_B["default"]
        assert not b.weight[~b.blocks].any() and b.weight[b.blocks].all()
        if precision == "fp32":  # bf16 rounds two products that are made in another order
            torch.testing.assert_close(in_their_layout(b.weight), theirs_.lora_B, rtol=1e-4, atol=1e-4)
    if precision == "fp32":
        torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-4)


def test_without_the_blocks_they_would_fill() -> None:
    model = ours().train()
    for layer in adapted_attention(model):
        layer.lora_B["default"].__class__ = nn.Linear
    loss(model).backward()
    assert all(layer.lora_B["default"].weight.grad[WIDTH : 2 * WIDTH].any() for layer in adapted_attention(model))


def test_a_copy_keeps_its_zeros() -> None:
    """A run tries its steps on a copy of the model."""
    model = copy.deepcopy(ours()).train()
    loss(model).backward()
    for layer in adapted_attention(model):
        b = layer.lora_B["default"]
        assert b.weight.grad.any() and not b.weight.grad[~b.blocks].any()


def test_what_it_begins_as() -> None:
    torch.manual_seed(0)
    model = merged_lora(tiny.gpt2(), R, ALPHA, 0.1)
    for layer in adapted_attention(model):
        a = layer.lora_A["default"].weight
        bound = WIDTH**-0.5  # Kaiming-uniform with a = √5: √(6 / ((1 + 5)·d))
        assert a.shape == (2 * R, WIDTH) and a.abs().max() <= bound and a.abs().max() > 0.9 * bound
        assert not layer.lora_B["default"].weight.any()
        assert layer.scaling["default"] == ALPHA / R
        assert layer.lora_dropout["default"].p == 0.1
    assert not any(p.requires_grad for n, p in model.named_parameters() if "lora_" not in n)
    loralibs = len(adapted_attention(model)) * (2 * R * WIDTH + 2 * WIDTH * R)  # A, and B without its zero blocks
    whole = sum(weight.numel() for weight in tiny.gpt2().parameters()) + loralibs
    assert sizes(model) == (loralibs, whole)
    assert trained_line(model).startswith(f"LoRA, rank {R}: ")


def test_another_architecture_is_refused() -> None:
    with pytest.raises(UserError, match="llama"):
        merged_lora(tiny.llama(), R, ALPHA)


# ---- files ------------------------------------------------------------------------------------------


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_a_file_of_the_adapter_alone_and_back(tmp_path: Path) -> None:
    model = ours()
    file, alpha = loralib_pairs(model, "--to")
    assert alpha == ALPHA and file.r == R
    write_loralib(tmp_path / "model.pt", file)
    content = torch.load(tmp_path / "model.pt", weights_only=True)["model_state_dict"]
    other, _ = theirs(model)
    loralib: Any = pytest.importorskip("loralib")
    right = loralib.lora_state_dict(other)
    assert {name.removeprefix("module.") for name in content} == right.keys()
    for name, value in right.items():
        assert torch.equal(content[f"module.{name}"], value)
    again = adapter_of(read_loralib(tmp_path / "model.pt", "MODEL"), tiny.gpt2(), ALPHA, "--base")
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-5, atol=1e-5)
    assert (logits(again) - logits(tiny.gpt2())).abs().max() > 0.1


@pytest.mark.parametrize("prefix", ["", "module."])
def test_files_of_loralib_itself_are_read(tmp_path: Path, prefix: str) -> None:
    loralib: Any = pytest.importorskip("loralib")
    model = ours()
    other, _ = theirs(model)
    state = {f"{prefix}{name}": value for name, value in loralib.lora_state_dict(other).items()}
    torch.save({"model_state_dict": state}, tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        again = adapter_of(read_loralib(tmp_path / name, "MODEL"), tiny.gpt2(), ALPHA, "--base")
        torch.testing.assert_close(logits(again), logits(other), rtol=1e-5, atol=1e-5)


def test_a_file_of_everything_and_back(tmp_path: Path) -> None:
    model = ours()
    file, _ = loralib_pairs(model, "--to")
    whole = LoralibFile(file.pairs, weights_of(tiny.gpt2(), "--to"))
    write_loralib(tmp_path / "model.pt", whole)
    again = read_loralib(tmp_path / "model.pt", "MODEL")
    assert again.pairs.keys() == file.pairs.keys()
    own = dict(tiny.gpt2().transformer.named_parameters())
    assert again.weights.keys() == own.keys() | {"lm_head.weight"}
    assert all(torch.equal(again.weights[name], own[name]) for name in own)


def test_an_adapter_that_shares_one_a_fits_with_its_rank_twice() -> None:
    """Any adapter of c_attn that leaves the keys alone; an odd rank cannot be two halves."""
    model: Any = adapt(tiny.gpt2(), LoraOptions(use_peft=True, lora_r=3, lora_alpha=5))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in adapted_attention(model):
            b = layer.lora_B["default"].weight
            b.copy_(torch.randn(b.shape, generator=generator))
            b[WIDTH : 2 * WIDTH] = 0
    file, alpha = loralib_pairs(model, "--to")
    assert (file.r, alpha) == (3, 5)
    again = adapter_of(file, tiny.gpt2(), alpha, "--base")
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "changes the keys"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["ln_f"]}, "ln_f was trained whole"),
        ({"lora_target_modules": ["c_attn", "c_fc"]}, "c_fc is adapted"),
        ({"lora_target_modules": ["h.0.attn.c_attn"]}, "transformer.h.1.attn.c_attn is not adapted"),
    ],
)
def test_what_the_layout_cannot_say(changes: dict[str, Any], reason: str) -> None:
    model = adapt(tiny.gpt2(), LoraOptions(use_peft=True, lora_r=2, **changes))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
    with pytest.raises(UserError) as caught:
        loralib_pairs(model, "--to")
    assert any(reason in problem.text for problem in caught.value.problems)


def test_new_rows_and_other_models_cannot_be_said() -> None:
    rows = adapt(tiny.gpt2(), LoraOptions(use_peft=True, lora_r=2), rows_before=tiny.VOCABULARY - 2)
    with pytest.raises(UserError, match="rows of new tokens"):
        loralib_pairs(rows, "--to")
    biased = adapt(tiny.gpt2(), LoraOptions(use_peft=True, lora_r=2))
    biased.peft_config["default"].bias = "all"  # as another program may have made it
    with pytest.raises(UserError, match="biases were trained"):
        loralib_pairs(biased, "--to")
    uneven = adapt(tiny.gpt2(), LoraOptions(use_peft=True, lora_r=2))
    adapted_attention(uneven)[0].scaling["default"] *= 2
    with pytest.raises(UserError, match="one rank and one alpha"):
        loralib_pairs(uneven, "--to")
    with pytest.raises(UserError, match="of a llama"):
        loralib_pairs(adapt(tiny.llama(), LoraOptions(use_peft=True, lora_r=2)), "--to")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: {k: v for k, v in s.items() if "h.0.attn.c_attn.lora_B" not in k}, "not that of GPT-2"),
        (lambda s: {**s, "transformer.h.0.mlp.c_fc.lora_A": torch.zeros(2, 2)}, "only GPT-2's attn.c_attn"),
        (lambda s: {**s, "transformer.ln_f.bias": torch.zeros(2)}, "ln_f.bias beside the adapter"),
        (lambda s: {k: v[:, :5] for k, v in s.items()}, "not that of GPT-2"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, change: Any, reason: str) -> None:
    file, _ = loralib_pairs(ours(), "--to")
    write_loralib(tmp_path / "model.pt", file)
    state = torch.load(tmp_path / "model.pt", weights_only=True)["model_state_dict"]
    torch.save({"model_state_dict": change(state)}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=reason):
        read_loralib(tmp_path / "model.pt", "MODEL")


def test_an_adapter_of_another_width_or_depth() -> None:
    file, _ = loralib_pairs(ours(), "--to")
    with pytest.raises(UserError, match="2 layers of width 32, and the model has 3 of 32"):
        config = tiny.gpt2().config
        config.n_layer = 3
        adapter_of(file, type(tiny.gpt2())(config), ALPHA, "--base")
