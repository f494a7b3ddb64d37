"""Dropout from bits: the same distribution, the same gradients, attention that is the kernel's where nothing drops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lmtrain.engine.trainer import LMTrainer
from lmtrain.models import fast_dropout as module
from lmtrain.models.fast_dropout import attention_with_dropout, dropping_fast, drops_on_cpu, fast_dropout
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, bert, gpt2, llama, logged, rows

COUNT = 1_000_000


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.9, 0.001])
def test_values_are_dropped_with_that_probability_and_the_mean_stays(probability: float) -> None:
    torch.manual_seed(3)
    values = fast_dropout(torch.ones(COUNT), probability)
    dropped = int(values.eq(0).sum())
    deviation = math.sqrt(COUNT * probability * (1 - probability))
    assert abs(dropped - COUNT * probability) < 6 * deviation
    assert values.unique().numel() == 2
    assert values.max().item() == pytest.approx(1 / (1 - probability), rel=2**-16 / (1 - probability))


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(4)
    gone = fast_dropout(torch.ones(COUNT), 0.5).eq(0).double() - 0.5
    for lag in (1, 2, 3, 4, 8):  # four values share a random word
        correlation = (gone[lag:] * gone[:-lag]).mean() * 4
        assert abs(float(correlation)) < 6 / math.sqrt(COUNT), lag


def test_the_seed_decides_and_another_draws_another() -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return fast_dropout(torch.ones(5001), 0.3)

    assert torch.equal(drawn(7), drawn(7))
    assert not torch.equal(drawn(7), drawn(8))


def test_the_gradient_goes_where_the_value_went() -> None:
    values = torch.randn(64, 129, requires_grad=True)
    out = fast_dropout(values, 0.25)
    out.backward(torch.ones_like(out))
    assert values.grad is not None
    assert torch.equal(values.grad.ne(0), out.ne(0))
    torch.testing.assert_close(values.grad * values.detach(), out.detach())


@pytest.mark.parametrize("mask", ["none", "causal", "bool", "float"])
@pytest.mark.parametrize("heads", [4, 2], ids=["all heads", "grouped"])
def test_attention_is_the_kernels_where_nothing_is_dropped(mask: str, heads: int) -> None:
    torch.manual_seed(1)
    shapes = [(3, 4, 17, 8), (3, heads, 17, 8), (3, heads, 17, 8)]
    mine = [torch.randn(shape, requires_grad=True) for shape in shapes]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in mine]
    visible = torch.rand(3, 1, 17, 17) > 0.3
    visible[..., 0] = True
    options = {
        "none": {},
        "causal": {"is_causal": True},
        "bool": {"attn_mask": visible},
        "float": {"attn_mask": torch.randn(3, 1, 17, 17)},
    }[mask]
    gqa = {"enable_gqa": heads != 4, "scale": 0.2}
    right = functional.scaled_dot_product_attention(*theirs, **options, **gqa)  # type: ignore[arg-type]
    out = attention_with_dropout(*mine, **options, **gqa)  # type: ignore[arg-type]
    torch.testing.assert_close(out, right, rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(out)
    out.backward(weights)
    right.backward(weights)
    for here, there in zip(mine, theirs, strict=True):
        torch.testing.assert_close(here.grad, there.grad, rtol=1e-4, atol=1e-6)


def test_padding_in_front_of_a_row_stays_out_of_the_way() -> None:
    """There a query may look nowhere at all."""
    model = gpt2()
    ids = torch.arange(5, 25).view(2, 10)
    mask, labels = torch.ones_like(ids), ids.clone()
    mask[0, :4], labels[0, :4] = 0, -100
    found = []
    for trying in (False, True):
        model.zero_grad()
        with dropping_fast(trying=trying):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        found.append((loss.item(), {name: weight.grad.clone() for name, weight in model.named_parameters()}))
    (right, gradients), (loss, others) = found
    assert loss == pytest.approx(right, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-6)


def test_attention_drops_weights_and_keeps_their_mean() -> None:
    torch.manual_seed(2)
    query, key, value = torch.randn(3, 2, 2, 6, 8).unbind()
    whole = attention_with_dropout(query, key, value)
    drawn = torch.stack([attention_with_dropout(query, key, value, dropout_p=0.5) for _ in range(4000)])
    assert not torch.equal(drawn[0], drawn[1])
    spread = drawn.std(0) / math.sqrt(len(drawn))
    assert bool(((drawn.mean(0) - whole).abs() < 6 * spread).all())


def test_every_way_to_ask_for_dropout_is_caught() -> None:
    values, calls = torch.ones(100, 100), []
    with dropping_fast():
        for drop in (
            torch.nn.Dropout(0.5),
            lambda x: functional.dropout(x, 0.5),
            lambda x: functional.dropout(x, p=0.5),
        ):
            torch.manual_seed(5)
            calls.append(drop(values))
        assert torch.equal(torch.nn.Dropout(0.5).eval()(values), values)
        assert torch.equal(functional.dropout(values, 0.0), values)
        assert functional.dropout(values, 1.0).eq(0).all()
    torch.manual_seed(5)
    expected = fast_dropout(values, 0.5)
    assert all(torch.equal(call, expected) for call in calls)
    torch.manual_seed(5)
    assert not torch.equal(functional.dropout(values, 0.5), expected), "outside everything is torch's again"


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_parts_are_run_again_with_the_same_draws(reentrant: bool) -> None:
    values = torch.randn(200, 100, requires_grad=True)
    with dropping_fast():
        out: Any = checkpoint(lambda x: functional.dropout(x, 0.5) * 2, values, use_reentrant=reentrant)
        out.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad.ne(0), out.ne(0))


def test_whether_there_is_anything_to_drop() -> None:
    assert drops_on_cpu(gpt2(dropout=0.1)) and drops_on_cpu(bert(dropout=0.1))
    assert not drops_on_cpu(llama())


def trained(folder: Path, **options: Any) -> LMTrainer:
    data = MemoryLayout(rows(16, shortest=20, longest=20))
    args = arguments(folder, max_steps=3, per_device_train_batch_size=8)
    run = LMTrainer(gpt2(dropout=0.2), args, data, objective=Causal(), **options)
    run.train()
    return run


def test_training_uses_it_and_says_so_in_its_decisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(
        module, "_kept", lambda shape, level, draw=module._kept: drawn.append(shape) or draw(shape, level)
    )
    run = trained(tmp_path)
    assert run.fast_paths.decisions["dropout"] == {"choice": "sixteen bits a value"}
    embeddings, attention = 3 * 1, 3 * 2  # steps × places; the layers' own are below the size where it pays
    assert len(drawn) == embeddings + attention + 3 * 4
    assert logged(run, "loss") == logged(trained(tmp_path), "loss")


def test_a_run_that_began_without_it_goes_on_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decided = {k: v for k, v in trained(tmp_path).fast_paths.decisions.items() if k != "dropout"}
    monkeypatch.setattr(module, "_kept", None)
    assert trained(tmp_path, decided=decided).state.global_step == 3


def test_a_model_whose_attention_comes_out_otherwise_keeps_torchs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = module.attention_with_dropout
    monkeypatch.setattr(module, "attention_with_dropout", lambda *args, **more: right(*args, **more) * 1.01)
    run = trained(tmp_path)
    assert run.fast_paths.decisions["dropout"] == {"choice": "as it is"}
    assert run.fast_paths.scoring.head is not None
