"""The chapter's key-token loss (Hugging Face course, 7.6), written here from its description, and ours.

A block's loss is the mean over its predicted positions, its weight α·(1 + key tokens in the block), and the batch's
loss the mean over the blocks of weight times loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lmtrain.engine.speed.scoring import Scoring
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.head import find_head
from lmtrain.objectives import KeyTokens
from lmtrain.objectives.linear_cross_entropy import Kernel
from tiny import VOCABULARY, MemoryLayout, arguments, gpt2, llama, logged

KEYS = (7, 11, 30)
CONTEXT = 16
BLOCKS = torch.randint(5, VOCABULARY, (8, CONTEXT), generator=torch.Generator().manual_seed(3))
KERNELS = [
    None, Kernel("plain"), Kernel("chunked", 16), Kernel("chunked", 50, vocabulary_first=True), Kernel("torch"),
]  # fmt: skip
BLOCKS[0, 0] = KEYS[0]  # a first token is never predicted, and counts
BLOCKS[1, :4] = KEYS[1]
BLOCKS[2] = BLOCKS[2].masked_fill(torch.isin(BLOCKS[2], torch.tensor(KEYS)), 5)  # holds none


def chapters_loss(model: Any, ids: Tensor, alpha: float) -> Tensor:
    logits = model(input_ids=ids).logits[:, :-1].double()
    picked = logits.gather(-1, ids[:, 1:, None]).squeeze(-1)
    per_block = (logits.logsumexp(-1) - picked).mean(1)
    occurrences = sum((ids == key).sum(1) for key in KEYS)
    return (alpha * (1 + occurrences) * per_block).mean()


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("alpha", [1.0, 2.0, 0.3])
def test_value_and_every_gradient(make: Any, kernel: Kernel | None, alpha: float) -> None:
    model = make()
    objective = KeyTokens(KEYS, alpha)
    expected = chapters_loss(model, BLOCKS, alpha)
    right = gradients(model, expected)
    batch = objective.batch(MemoryLayout(BLOCKS.tolist()).__getitems__(range(8)))
    scoring = Scoring() if kernel is None else Scoring(find_head(model), kernel)
    sums = scoring(model, batch, objective)
    loss = sums.loss / sums.count
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, gradient in gradients(model, loss).items():
        torch.testing.assert_close(gradient, right[name], rtol=1e-4, atol=1e-6, msg=name)


def one_step(folder: Path, alpha: float) -> LMTrainer:
    args = arguments(folder, per_device_train_batch_size=8, max_steps=1, optim="sgd", learning_rate=0.05,
                     max_grad_norm=0)  # fmt: skip
    trainer = LMTrainer(gpt2(), args, MemoryLayout(BLOCKS.tolist()), objective=KeyTokens(KEYS, alpha))
    trainer.train()
    return trainer


def test_the_trainers_step_is_the_chapters(tmp_path: Path) -> None:
    trainer = one_step(tmp_path, 1.0)
    assert trainer.fast_paths.scoring.head is not None  # the fast path proved itself with the weights
    model = gpt2()
    expected = chapters_loss(model, BLOCKS, 1.0)
    right = gradients(model, expected)
    assert logged(trainer, "loss")[0] == pytest.approx(expected.item(), rel=1e-5)
    before = dict(model.named_parameters())
    for name, weight in trainer.model.named_parameters():
        torch.testing.assert_close(weight, before[name] - 0.05 * right[name], rtol=1e-5, atol=1e-6, msg=name)


def test_twice_the_alpha_is_twice_the_loss_and_the_gradient(tmp_path: Path) -> None:
    one, two = one_step(tmp_path, 1.0), one_step(tmp_path, 2.0)
    assert logged(two, "loss")[0] == pytest.approx(2 * logged(one, "loss")[0], rel=1e-6)
    assert logged(two, "grad_norm")[0] == pytest.approx(2 * logged(one, "grad_norm")[0], rel=1e-5)
