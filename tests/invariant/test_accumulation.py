"""8×1, 4×2 and 1×8 are the same step: rows of uneven length, and a last window that is not full."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal, Masked, Objective
from tiny import VOCABULARY, MemoryLayout, arguments, bert, gpt2, llama, logged, rows, weights

# 21 rows at 8 to a step: two full windows and one of five, which is 4 + 1 at 4×2 and five rows at 1×8.
DATA = rows(21, shortest=2, longest=14)
EPOCHS = 2
MASKED = Masked(4, VOCABULARY, special_ids=(0, 1, 2, 3, 4), probability=0.3)


def train(make, objective: Objective, folder: Path, batch: int, **options: Any) -> LMTrainer:
    args = arguments(
        folder,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=8 // batch,
        num_train_epochs=EPOCHS,
        optim="sgd",  # its update is proportional to the gradient, where Adam's would hide a wrong scale
        learning_rate=0.05,
        max_grad_norm=0,
        **options,
    )
    trainer = LMTrainer(make(), args, MemoryLayout(DATA), objective=objective)
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("make", "objective"),
    [(llama, Causal()), (gpt2, Causal()), (bert, MASKED)],
    ids=["llama", "gpt2", "bert"],
)
def test_the_same_step_whatever_the_micro_batch(make, objective: Objective, tmp_path: Path) -> None:
    whole = train(make, objective, tmp_path, 8)
    assert whole.state.global_step == 3 * EPOCHS
    for batch in (4, 1):
        cut = train(make, objective, tmp_path, batch)
        assert cut.state.global_step == whole.state.global_step
        assert logged(cut, "loss") == pytest.approx(logged(whole, "loss"), rel=1e-5)
        assert logged(cut, "grad_norm") == pytest.approx(logged(whole, "grad_norm"), rel=1e-5)
        assert cut.state.num_input_tokens_seen == whole.state.num_input_tokens_seen
        for name, value in weights(whole.model).items():
            torch.testing.assert_close(weights(cut.model)[name], value, rtol=1e-5, atol=1e-6)


def test_the_logged_loss_is_that_of_the_windows_own_tokens(tmp_path: Path) -> None:
    """The ragged window is divided by its own count: its loss is what evaluation finds on its rows."""
    trainer = train(llama, Causal(), tmp_path, 4, max_steps=1)
    order = list(trainer._order)[:8]
    first = MemoryLayout([DATA[i] for i in order])
    fresh = LMTrainer(llama(), arguments(tmp_path), eval_dataset=first, objective=Causal())
    assert logged(trainer, "loss")[0] == pytest.approx(fresh.evaluate()["eval_loss"], rel=1e-6)
