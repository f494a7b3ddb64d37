"""Attention of one packed example after the other: what a mask would give, whoever calls it and however often."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from architectures import tiny
from lmtrain.models import isolation
from lmtrain.models.attention_in_pieces import attend, heed_pieces, piece_lengths

SEGMENTS = torch.tensor([[1, 1, 1, 2, 2, 2, 2], [2, 2, 3, 0, 0, 0, 0]])


@pytest.fixture
def standing() -> Any:
    known = ALL_ATTENTION_FUNCTIONS["sdpa"]
    return known.args[0] if isinstance(known, partial) else known


def states(heads: int) -> Tensor:
    """(R, H, W, D), as a view of (R, W, H, D): the way models make them."""
    return torch.randn(2, 7, heads, 8, dtype=torch.float64).transpose(1, 2).requires_grad_()


def test_runs_do_not_go_on_into_the_next_row() -> None:
    assert piece_lengths(SEGMENTS) == (3, 4, 2, 1, 4)
    assert piece_lengths(torch.ones(1, 1, dtype=torch.int64)) == (1,)


@pytest.mark.parametrize("causal", [True, False])
def test_values_and_gradients_are_those_of_a_mask(causal: bool, standing: Any) -> None:
    torch.manual_seed(0)
    module: Any = SimpleNamespace(is_causal=causal, num_key_value_groups=2)
    inputs = states(4), states(2), states(2)
    seen = SEGMENTS[:, None, :, None] == SEGMENTS[:, None, None, :]
    seen = seen & torch.ones(7, 7, dtype=torch.bool).tril() if causal else seen
    masked, _ = standing(module, *inputs, seen, scaling=0.3)
    apart, _ = attend(standing, module, *inputs, None, scaling=0.3, piece_lengths=piece_lengths(SEGMENTS))
    assert apart.shape == masked.shape == (2, 7, 4, 8)
    torch.testing.assert_close(apart, masked, rtol=1e-12, atol=1e-12)
    wished = torch.randn_like(masked)
    for one, other in zip(
        torch.autograd.grad(apart, inputs, wished), torch.autograd.grad(masked, inputs, wished), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_without_lengths_the_library_s_own_function_decides(standing: Any) -> None:
    heed_pieces()
    heed_pieces()
    known: Any = ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert known.func is attend and known.args == (standing,), "once, however often it is asked for"
    module, inputs = SimpleNamespace(is_causal=True), (states(2), states(2), states(2))
    assert torch.equal(known(module, *inputs, None)[0], standing(module, *inputs, None)[0])
    assert not torch.equal(
        known(module, *inputs, None)[0], known(module, *inputs, None, piece_lengths=(3,) * 4 + (2,))[0]
    )


@pytest.mark.parametrize("reentrant", [True, False])
def test_layers_that_run_again_in_the_backward_pass_heed_them(reentrant: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(isolation, "_WIDE", 1)
    model = tiny("llama").double().train()
    (way, *_) = isolation.ways(model, causal=True)
    assert way.way == "pieces"
    ids = torch.randint(5, 60, SEGMENTS.shape, generator=torch.Generator().manual_seed(0))
    inputs = way.inputs(SEGMENTS, torch.tensor([[0, 1, 2, 0, 1, 2, 3], [0, 1, 0, 0, 0, 0, 0]]))

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(input_ids=ids, **inputs).logits.logsumexp(-1).sum().backward()
        return [weight.grad.clone() for weight in model.parameters()]

    once = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    for again, first in zip(gradients(), once, strict=True):
        torch.testing.assert_close(again, first, rtol=1e-10, atol=1e-10)
