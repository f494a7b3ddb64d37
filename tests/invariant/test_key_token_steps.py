"""Weighted steps are the same however they are divided; evaluation is unweighted and independent of batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal, KeyTokens
from tiny import MemoryLayout, arguments, gpt2, llama, logged, rows, weights

DATA = rows(21, shortest=2, longest=14)  # at 8 to a step: two full windows and one of five
KEYS = (7, 30, 31)
OBJECTIVE = KeyTokens(KEYS, 0.5)


def train(folder: Path, batch: int, *, objective: Any = OBJECTIVE, make: Any = llama, **options: Any) -> LMTrainer:
    packing = options.pop("packing", True)
    resumed = options.pop("resumed", None)
    chosen = {"num_train_epochs": 2, "optim": "sgd", "learning_rate": 0.02, "max_grad_norm": 0, **options}
    args = arguments(folder, per_device_train_batch_size=batch, gradient_accumulation_steps=8 // batch, **chosen)
    trainer = LMTrainer(make(), args, MemoryLayout(DATA), objective=objective, packing=packing)
    trainer.train(resume_from_checkpoint=resumed)
    return trainer


def test_some_rows_hold_keys_and_some_do_not() -> None:
    held = [any(token in KEYS for token in row) for row in DATA]
    assert 3 < sum(held) < 18


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
def test_the_same_step_whatever_the_micro_batch(packing: bool, tmp_path: Path) -> None:
    whole = train(tmp_path, 8, packing=False)
    for batch in (8, 4, 1):
        cut = train(tmp_path, batch, packing=packing)
        assert (cut.fast_paths.packing is not None) == packing
        assert logged(cut, "loss") == pytest.approx(logged(whole, "loss"), rel=1e-5)
        assert logged(cut, "grad_norm") == pytest.approx(logged(whole, "grad_norm"), rel=1e-5)
        for name, value in weights(whole.model).items():
            torch.testing.assert_close(weights(cut.model)[name], value, rtol=1e-5, atol=1e-6)


def test_the_weights_do_something(tmp_path: Path) -> None:
    plain, heavy = (train(tmp_path, 8, objective=o, max_steps=1) for o in (Causal(), KeyTokens(KEYS)))
    assert logged(heavy, "loss")[0] > 1.2 * logged(plain, "loss")[0]


def test_compiled_layers_make_the_same_losses(tmp_path: Path) -> None:
    data = MemoryLayout([row * 3 for row in rows(8, shortest=8, longest=8)])
    losses = []
    for compiles in ("off", "on"):
        args = arguments(tmp_path, per_device_train_batch_size=4, num_train_epochs=1)
        trainer = LMTrainer(gpt2(), args, data, objective=OBJECTIVE, compiles=compiles)
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_evaluation_is_unweighted_and_told_apart_whatever_the_batch(tmp_path: Path) -> None:
    with_keys = [row for row in DATA if any(token in KEYS for token in row)]
    without = [row for row in DATA if row not in with_keys]

    def evaluated(data: list[list[int]], objective: Any, batch: int = 4) -> dict[str, float]:
        args = arguments(tmp_path, per_device_eval_batch_size=batch)
        return LMTrainer(llama(), args, eval_dataset=MemoryLayout(data), objective=objective).evaluate()

    found = evaluated(DATA, OBJECTIVE)
    everything = evaluated(DATA, Causal())
    for name in ("eval_loss", "eval_accuracy", "eval_tokens"):
        assert found[name] == pytest.approx(everything[name], rel=1e-6)
    assert "eval_loss_with_keys" not in everything
    for name, data in (("with", with_keys), ("without", without)):
        part = evaluated(data, Causal())
        assert found[f"eval_loss_{name}_keys"] == pytest.approx(part["eval_loss"], rel=1e-6)
        assert found[f"eval_perplexity_{name}_keys"] == pytest.approx(part["eval_perplexity"], rel=1e-5)
        assert found[f"eval_tokens_{name}_keys"] == part["eval_tokens"]
    one = evaluated(DATA, OBJECTIVE, batch=1)
    assert one["eval_loss_with_keys"] == pytest.approx(found["eval_loss_with_keys"], rel=1e-6)


def test_own_metrics_go_the_stock_way_and_find_the_same(tmp_path: Path) -> None:
    data = MemoryLayout([row[:8] for row in rows(9, shortest=8, longest=8)])
    args = arguments(tmp_path, per_device_eval_batch_size=4)
    ours = LMTrainer(llama(), args, eval_dataset=data, objective=OBJECTIVE).evaluate()
    stock = LMTrainer(
        llama(), args, eval_dataset=data, objective=OBJECTIVE, compute_metrics=lambda _: {"mine": 1.0}
    ).evaluate()
    assert stock["eval_mine"] == 1.0
    for name in ("eval_loss", "eval_loss_with_keys", "eval_loss_without_keys"):
        assert stock[name] == pytest.approx(ours[name], rel=1e-6)


def test_a_resumed_run_is_the_straight_one_to_the_bit(tmp_path: Path) -> None:
    def dropping() -> Any:
        return gpt2(dropout=0.2)

    options: dict[str, Any] = {"make": dropping, "optim": "adamw_torch", "save_strategy": "steps", "save_steps": 2}
    straight = train(tmp_path, 4, **options)
    again = train(tmp_path, 4, **options, resumed=str(tmp_path / "checkpoint-4"))
    assert logged(again, "loss") == logged(straight, "loss")
    for name, value in weights(straight.model).items():
        assert torch.equal(weights(again.model)[name], value)
