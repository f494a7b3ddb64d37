"""A GELU spelled out in Python gives way to torch's kernel, and only where nothing changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from architectures import tiny
from lmtrain.engine.speed.fast_paths import choose_scoring
from lmtrain.models import activations
from lmtrain.models.activations import fuse_activations, put_back, spell_out
from lmtrain.objectives import Causal

IDS = torch.arange(5, 29).reshape(2, 12)
BATCH = {"input_ids": IDS, "labels": IDS.clone()}


def kinds(model: nn.Module) -> list[str]:
    return [type(module).__name__ for module in model.modules() if "GELU" in type(module).__name__]


@pytest.mark.parametrize("kind", ["gpt2", "gptj"])
def test_it_is_fused_and_proven(kind: str) -> None:
    model = tiny(kind)
    before, names = model(input_ids=IDS).logits, list(model.state_dict())
    scoring, decisions, _ = choose_scoring(model, BATCH, Causal(), dtype=torch.float32)
    assert scoring.head is not None and decisions["activations"]["choice"] == "fused"
    assert kinds(model) == ["GELU", "GELU"] and list(model.state_dict()) == names
    torch.testing.assert_close(model(input_ids=IDS).logits, before, rtol=1e-5, atol=1e-5)
    assert all(weight.grad is None for weight in model.parameters())


def test_what_was_replaced_can_be_put_back() -> None:
    model = tiny("gpt2")
    put_back(fuse_activations(model))
    assert kinds(model) == ["NewGELUActivation", "NewGELUActivation"]


def test_a_model_that_is_fused_already_is_tried_as_if_it_were_not() -> None:
    """Another trainer of the same model chose before: the decision must not say that nothing was replaced."""
    model = tiny("gpt2")
    choices = [choose_scoring(model, BATCH, Causal(), dtype=torch.float32)[1]["activations"] for _ in range(2)]
    assert choices == [{"choice": "fused"}] * 2 and kinds(model) == ["GELU", "GELU"]
    spell_out(copy.deepcopy(model))
    assert kinds(model) == ["GELU", "GELU"]
    spell_out(model)
    assert kinds(model) == ["NewGELUActivation", "NewGELUActivation"]


def test_a_kernel_of_the_model_s_own_stays() -> None:
    model = nn.Sequential(nn.GELU(approximate="tanh"))
    spell_out(model)
    assert kinds(model) == ["GELU"]


def test_a_model_without_one_is_left_alone() -> None:
    model = tiny("llama")
    before = [type(module) for module in model.modules()]
    _, decisions, _ = choose_scoring(model, BATCH, Causal(), dtype=torch.float32)
    assert decisions["activations"]["choice"] == "as they are"
    assert [type(module) for module in model.modules()] == before


def test_another_function_is_found_out_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Coarse(nn.GELU):
        def __init__(self, **_: Any) -> None:
            super().__init__(approximate="none")

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 1.01

    monkeypatch.setattr(activations.nn, "GELU", Coarse)
    model = tiny("gpt2")
    scoring, decisions, _ = choose_scoring(model, BATCH, Causal(), dtype=torch.float32)
    assert scoring.head is not None, "the head is right, and still taken"
    assert decisions["activations"]["choice"] == "as they are"
    assert kinds(model) == ["NewGELUActivation", "NewGELUActivation"]
