"""Recomputed activations: the same bits, less that is kept, and nothing else made of a freed tensor's memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ModernBertConfig, ModernBertForMaskedLM

from lmtrain.engine.trainer import LMTrainer, settling
from lmtrain.models import recomputation as module
from lmtrain.models.recomputation import recomputing
from tiny import MemoryLayout, arguments, bert, gpt2, llama, logged, rows

WIDTH = 32


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything counts as large."""
    monkeypatch.setattr(module, "_LARGE", 1)
    yield


def modernbert() -> Any:
    config = ModernBertConfig(
        vocab_size=97, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        pad_token_id=0, attn_implementation="sdpa",
    )  # fmt: skip
    return ModernBertForMaskedLM(config)


def gradients(model: Any, *, recomputed: bool, **autocast: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model.train()
    model.zero_grad()
    torch.manual_seed(5)  # of dropout
    ids = torch.arange(6 * 11).view(6, 11) % 60
    with recomputing(model) if recomputed else nullcontext(), torch.autocast("cpu", **(autocast or {"enabled": False})):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("autocast", [{}, {"dtype": torch.bfloat16}], ids=["fp32", "autocast"])
@pytest.mark.parametrize("make", [gpt2, bert, llama, modernbert])
def test_loss_and_every_gradient_are_the_same_to_the_bit(make: Callable[[], Any], autocast: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model = make()
    loss, plain = gradients(model, recomputed=False, **autocast)
    again, found = gradients(model, recomputed=True, **autocast)
    assert torch.equal(loss, again)
    assert plain.keys() == found.keys()
    assert all(torch.equal(plain[name], found[name]) for name in plain)


class Layer(nn.Module):
    """A norm, a product, an activation, a product: the last two as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.activation, self.last = nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        self.outputs: list[weakref.ref[Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        active = self.activation(self.first(normed))
        self.outputs = [weakref.ref(normed), weakref.ref(active)]
        return self.last(active)


def test_outputs_are_gone_when_the_forward_pass_is_over() -> None:
    layer, x = Layer(), torch.randn(7, WIDTH, requires_grad=True)
    kept = layer(x)
    assert all(output() is not None for output in layer.outputs)
    with recomputing(layer):
        made = layer(x)
    assert all(output() is None for output in layer.outputs)
    torch.testing.assert_close(torch.autograd.grad(made.sum(), x), torch.autograd.grad(kept.sum(), x), rtol=0, atol=0)


def test_the_graph_can_be_gone_through_twice_and_differentiated_again() -> None:
    layer, x = Layer(), torch.randn(7, WIDTH, requires_grad=True)

    def of(context: Any) -> list[Tensor]:
        with context:
            y = layer(x).square().sum()
        first = torch.autograd.grad(y, x, retain_graph=True)[0]
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        return [first, slope.detach(), torch.autograd.grad(slope.square().sum(), layer.last.weight)[0]]

    for plain, found in zip(of(nullcontext()), of(recomputing(layer)), strict=True):
        torch.testing.assert_close(found, plain, rtol=0, atol=0)


class WrittenOver(Layer):
    """What the activation made is scaled where it lies."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.activation(self.first(self.norm(x))).mul_(3))


class GoneSoon(Layer):
    """What the norm made is freed, and another tensor comes to lie in its memory, which the product keeps."""

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        scaled, place = normed * 2, normed.detach().untyped_storage()  # a product with a number keeps nothing
        del normed
        other = torch.empty(0).set_(place, 0, x.shape).fill_(1.5)
        return scaled * other


class PartOnly(Layer):
    """Of what the activation made half is multiplied, and the whole turned round."""

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(self.first(self.norm(x)))
        half = active[:, :WIDTH]
        return half * half.flip(0) + self.last(active.t())


@pytest.mark.parametrize("make", [WrittenOver, GoneSoon, PartOnly])
def test_what_is_no_longer_what_the_module_made_is_kept_as_it_is(make: Callable[[], Layer]) -> None:
    layer, x = make(), torch.randn(64, WIDTH)
    plain = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()), allow_unused=True)
    with recomputing(layer):
        y = layer(x).square().sum()
    found = torch.autograd.grad(y, list(layer.parameters()), allow_unused=True)
    for one, other in zip(plain, found, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


def test_an_input_that_is_written_over_is_an_error_as_without() -> None:
    layer = Layer()

    def run(context: Any) -> None:
        with context:
            first = layer.first(torch.randn(7, WIDTH))
            y = layer.last(layer.activation(first)).sum()
            first.detach().zero_()
        y.backward()

    for context in (nullcontext(), recomputing(layer)):
        with pytest.raises(RuntimeError, match=r"modified by an inplace operation|written over"):
            run(context)


def test_no_hook_stays_and_a_module_with_hooks_is_left_alone() -> None:
    layer = Layer()
    layer.activation.register_forward_hook(lambda module, args, output: output * 2)
    x = torch.randn(7, WIDTH)
    with pytest.raises(ValueError, match="on purpose"), recomputing(layer):
        assert layer.norm._forward_hooks
        raise ValueError("on purpose")
    assert not layer.norm._forward_hooks
    with recomputing(layer):
        y = layer(x).sum()
    found = torch.autograd.grad(y, layer.last.weight)
    torch.testing.assert_close(found, torch.autograd.grad(layer(x).sum(), layer.last.weight), rtol=0, atol=0)


def test_a_run_recomputes_and_has_the_same_losses(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tensor] = []
    make = module._Recipe.make
    monkeypatch.setattr(module._Recipe, "make", lambda recipe: made.append(make(recipe)) or made[-1])

    def run(name: str) -> list[float]:
        torch.manual_seed(2)
        args = arguments(tmp_path / name, max_steps=3, logging_steps=1)
        trainer = LMTrainer(gpt2(), args, MemoryLayout(rows(8)))
        trainer.train()
        return logged(trainer, "loss")

    found = run("recomputed")
    count = len(made)
    assert count
    monkeypatch.setattr(settling, "is_worth_it", lambda positions, width: False)
    assert run("kept") == found
    assert len(made) == count
