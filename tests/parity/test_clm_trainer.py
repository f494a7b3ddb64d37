"""Training as the stock Trainer trains: the same batches, fp32, no dropout, 20 steps.

Both get the same model, data and order, one batch after the other; no row is padded, since the stock Trainer
is right about full rows. Its losses are its own: of Llama's forward, which shifts and counts as it should,
and of GPT-2's, whose count includes the label at position 0 that is never predicted; ignoring that label on
both sides makes it right.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, Trainer, default_data_collator

from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import VOCABULARY, arguments, gpt2, llama, logged, weights

STEPS = 20


def blocks(count: int, *, first_label: bool) -> list[dict[str, Any]]:
    ids = torch.randint(5, VOCABULARY, (count, 16), generator=torch.Generator().manual_seed(3))
    labels = ids.clone()
    if not first_label:
        labels[:, 0] = -100
    return [{"input_ids": i, "labels": label} for i, label in zip(ids, labels, strict=True)]


def train(kind: type[Trainer], model: PreTrainedModel, data: Any, folder: Path, accumulation: int, **more: Any) -> Any:
    args = arguments(
        folder,
        max_steps=STEPS,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy="sequential",
        **more,
    )
    options = {"objective": Causal()} if kind is LMTrainer else {"data_collator": default_data_collator}
    trainer = kind(model=model, args=args, train_dataset=data, **options)
    trainer.train()
    return trainer


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(("make", "first_label"), [(llama, True), (gpt2, False)], ids=["llama", "gpt2"])
def test_twenty_steps_equal_the_stock_trainers(make, first_label: bool, accumulation: int, tmp_path: Path) -> None:
    data = blocks(STEPS * 4 * accumulation, first_label=first_label)
    stock = train(Trainer, make(), data, tmp_path / "stock", accumulation)
    ours = train(LMTrainer, make(), data, tmp_path / "ours", accumulation)
    assert logged(ours, "loss") == pytest.approx(logged(stock, "loss"), rel=1e-6)
    assert len(logged(ours, "loss")) == STEPS
    assert logged(ours, "grad_norm") == pytest.approx(logged(stock, "grad_norm"), rel=1e-5)
    untrained = weights(make())
    for name, value in weights(stock.model).items():
        mine = weights(ours.model)[name]
        if name.endswith("c_attn.bias"):  # a softmax does not see the keys' bias: its gradient is rounding, which Adam
            mine, value = (torch.cat([bias[:32], bias[64:]]) for bias in (mine, value))  # makes whole steps of
            untrained[name] = torch.cat([untrained[name][:32], untrained[name][64:]])
        torch.testing.assert_close(mine, value, rtol=0, atol=1e-5)
        assert not torch.equal(value, untrained[name])  # something was learned to compare


def test_label_smoothing_trains_as_the_stock_trainers(tmp_path: Path) -> None:
    data = blocks(STEPS * 4, first_label=True)
    stock = train(Trainer, llama(), data, tmp_path / "stock", 1, label_smoothing_factor=0.1)
    ours = train(LMTrainer, llama(), data, tmp_path / "ours", 1, label_smoothing_factor=0.1)
    assert logged(ours, "loss") == pytest.approx(logged(stock, "loss"), rel=1e-6)
    assert logged(ours, "loss")[0] != pytest.approx(
        logged(train(LMTrainer, llama(), data, tmp_path / "plain", 1), "loss")[0], rel=1e-3
    )


def test_objective_and_own_labels_make_the_same_steps(tmp_path: Path) -> None:
    labelled = blocks(STEPS * 4, first_label=True)
    plain = [{"input_ids": item["input_ids"]} for item in labelled]
    one = train(LMTrainer, llama(), labelled, tmp_path / "one", 1)
    other = train(LMTrainer, llama(), plain, tmp_path / "other", 1)
    assert logged(one, "loss") == logged(other, "loss")
