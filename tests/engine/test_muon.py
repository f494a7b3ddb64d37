from __future__ import annotations

import copy

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from lmtrain.engine.muon import Muon, muon_for, orthogonalize

TINY = {"vocab_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}


def models() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [
        GPT2LMHeadModel(GPT2Config(vocab_size=50, n_layer=2, n_head=2, n_embd=16, n_positions=32)),
        LlamaForCausalLM(LlamaConfig(**TINY, intermediate_size=24, max_position_embeddings=32)),
        BertForMaskedLM(BertConfig(**TINY, intermediate_size=24, max_position_embeddings=32)),
    ]


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8)])
def test_the_update_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, *shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_the_update_is_near_the_nearest_orthogonal_matrix() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(12, 20)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    similarity = torch.nn.functional.cosine_similarity(orthogonalize(matrix[None]).flatten(), (u @ v).flatten(), dim=0)
    assert similarity > 0.97


@pytest.mark.parametrize("model", models(), ids=lambda m: type(m).__name__)
def test_every_parameter_is_in_one_group_and_embeddings_are_not_orthogonalized(model: torch.nn.Module) -> None:
    optimizer = muon_for(model)
    owners = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(owners) == len(set(owners))
    assert set(owners) == set(model.parameters())
    muon = {p for group in optimizer.param_groups if group["kind"] == "muon" for p in group["params"]}
    assert muon, "the layers have matrices"
    assert all(p.ndim == 2 for p in muon)
    outside = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
    assert not muon & outside
    plain = [g for g in optimizer.param_groups if g["kind"] == "adamw" and g["weight_decay"] == 0]
    assert all(p.ndim < 2 for group in plain for p in group["params"] if group is plain[-1])


def test_the_rest_is_stepped_as_torch_steps_adamw() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.randn(4))]
    theirs = copy.deepcopy(ours)
    settings = {"betas": (0.9, 0.95), "eps": 1e-8}
    a = Muon([], ours[:1], ours[1:], adam_lr=0.01, weight_decay=0.1, **settings)
    b = torch.optim.AdamW(
        [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}], lr=0.01, **settings
    )
    for _ in range(5):
        for left, right in zip(ours, theirs, strict=True):
            left.grad = torch.randn_like(left)
            right.grad = left.grad.clone()
        a.step()
        b.step()
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


def test_a_conv1d_is_stepped_as_the_linear_layer_it_is() -> None:
    """GPT-2 stores its matrices transposed; that must not change what is learned."""
    torch.manual_seed(0)
    linear = torch.nn.Parameter(torch.randn(24, 8))
    conv = torch.nn.Parameter(linear.detach().T.clone())
    a, b = Muon([(linear, True)], [], []), Muon([(conv, False)], [], [])
    for _ in range(3):
        linear.grad = torch.randn_like(linear)
        conv.grad = linear.grad.T.clone()
        a.step()
        b.step()
    torch.testing.assert_close(linear, conv.T, rtol=1e-5, atol=1e-6)


def test_it_goes_on_exactly_from_its_state() -> None:
    def run(steps: int, optimizer: Muon, model: torch.nn.Module) -> None:
        for step in range(steps):
            generator = torch.Generator().manual_seed(step)
            ids = torch.randint(0, 50, (2, 8), generator=generator)
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    model = models()[0].eval()
    optimizer = muon_for(model)
    run(2, optimizer, model)
    twin = copy.deepcopy(model)
    resumed = muon_for(twin)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(3, optimizer, model)
    run(3, resumed, twin)
    for left, right in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(left, right)
