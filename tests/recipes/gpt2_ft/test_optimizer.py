"""Adam with the decay behind it, against a hand-written step and, where they are one, against torch's."""

import copy
import math

import pytest
import torch
from torch import nn

from lmtrain.recipes.gpt2_ft.optimizer import DecayAfterAdam, groups


def gradients(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, generator=generator) for _ in range(count)]


def train(optimizer: torch.optim.Optimizer, weight: torch.Tensor, count: int = 6) -> torch.Tensor:
    for gradient in gradients(count):
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("correct", [False, True])
def test_the_decay_follows_the_update(correct: bool) -> None:
    weight = torch.linspace(-1, 1, 5, requires_grad=True)
    optimizer = DecayAfterAdam([weight], lr=0.1, betas=(0.9, 0.98), eps=1e-3, weight_decay=0.5, correct_bias=correct)
    p, m, v = torch.linspace(-1, 1, 5), torch.zeros(5), torch.zeros(5)
    for t, g in enumerate(gradients(6), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
        size = 0.1 * math.sqrt(1 - 0.98**t) / (1 - 0.9**t) if correct else 0.1
        p = p - size * m / (v.sqrt() + 1e-3)
        p = p - 0.1 * 0.5 * p
    torch.testing.assert_close(train(optimizer, weight), p)


def test_without_epsilon_and_decay_it_is_adam() -> None:
    mine, other = (torch.ones(5, requires_grad=True) for _ in range(2))
    ours = train(DecayAfterAdam([mine], lr=0.1, betas=(0.9, 0.98), eps=0.0, correct_bias=True), mine)
    torch.testing.assert_close(ours, train(torch.optim.Adam([other], lr=0.1, betas=(0.9, 0.98), eps=0.0), other))


def test_weights_without_a_gradient_do_not_decay() -> None:
    weight = torch.ones(3, requires_grad=True)
    DecayAfterAdam([weight], lr=0.1, weight_decay=0.5).step()
    assert weight.tolist() == [1, 1, 1]


def test_a_withheld_step_is_none() -> None:
    weight = torch.ones(3, requires_grad=True)
    optimizer = DecayAfterAdam([weight], lr=0.1, weight_decay=0.5)
    weight.grad = torch.ones(3)
    optimizer.withheld = True
    optimizer.step()
    assert weight.tolist() == [1, 1, 1]
    assert not optimizer.state[weight]
    optimizer.withheld = False
    optimizer.step()
    assert weight[0] < 1


def test_its_state_goes_on_elsewhere() -> None:
    weights = [torch.ones(5, requires_grad=True) for _ in range(2)]
    first = DecayAfterAdam([weights[0]], lr=0.1, weight_decay=0.1, correct_bias=True)
    train(first, weights[0], 3)
    with torch.no_grad():
        weights[1].copy_(weights[0])
    second = DecayAfterAdam([weights[1]], lr=0.1, weight_decay=0.1, correct_bias=True)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # else the two would share their averages
    torch.testing.assert_close(train(first, weights[0]), train(second, weights[1]), rtol=0, atol=0)


def test_biases_are_spared_by_name() -> None:
    model = nn.ModuleDict({"ln_1": nn.LayerNorm(3), "layer_norm": nn.LayerNorm(3), "c_fc": nn.Linear(3, 2)})
    model["c_fc"].weight.requires_grad_(False)
    decayed, spared = groups(model, no_decay_bias=True)
    names = {weight: name for name, weight in model.named_parameters()}
    assert [names[weight] for weight in decayed["params"]] == ["ln_1.weight"]  # not called layer_norm: decayed
    assert {names[weight] for weight in spared["params"]} == {
        "ln_1.bias", "layer_norm.weight", "layer_norm.bias", "c_fc.bias",
    }  # fmt: skip
    assert spared["weight_decay"] == 0
    (everything,) = groups(model, no_decay_bias=False)
    assert len(everything["params"]) == 5
