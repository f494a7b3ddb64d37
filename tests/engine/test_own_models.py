"""A model and an optimizer of one's own: no class of transformers, no name that the library knows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from lmtrain.core.errors import UserError
from lmtrain.core.streams import permutation
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import POSITIONS, VOCABULARY, MemoryLayout, arguments, llama, logged, rows, weights

DATA = rows(16)


class Own(nn.Module):
    """As people write them: a table of positions, a head that is tied to the embedding, settings that are an object."""

    def __init__(self, gives: str = "a tensor") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config, self.gives = SimpleNamespace(block_size=POSITIONS), gives
        self.wte, self.wpe = nn.Embedding(VOCABULARY, 16), nn.Embedding(POSITIONS, 16)
        self.mix = nn.Linear(16, 16)
        self.lm_head = nn.Linear(16, VOCABULARY, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        length = input_ids.shape[1]
        seen = self.wte(input_ids) + self.wpe(torch.arange(length))
        means = seen.cumsum(1) / torch.arange(1, length + 1)[:, None]  # each position sees those before it
        logits = self.lm_head(torch.tanh(self.mix(means)))
        return {"a tensor": logits, "a tuple": (logits,), "a mapping": {"logits": logits}}[self.gives]


def by_hand(steps: int, size: int, seed: int) -> list[float]:
    """The losses of the same training in plain torch."""
    model, losses = Own(), []
    order = permutation(seed, 0, len(DATA)).tolist()
    for step in range(steps):
        chosen = [torch.tensor(DATA[i]) for i in order[step * size : (step + 1) * size]]
        sums = [nn.functional.cross_entropy(model(ids[None])[0, :-1], ids[1:], reduction="sum") for ids in chosen]
        loss = torch.stack(sums).sum() / sum(len(ids) - 1 for ids in chosen)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.5 * weight.grad
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("gives", ["a tensor", "a tuple", "a mapping"])
def test_a_module_of_ones_own_trains_as_by_hand(gives: str, tmp_path: Path) -> None:
    args = arguments(
        tmp_path, max_steps=4, per_device_train_batch_size=2, gradient_accumulation_steps=2, optim="sgd",
        learning_rate=0.5, max_grad_norm=0,
    )  # fmt: skip
    data = MemoryLayout(DATA)
    trainer = LMTrainer(Own(gives), args, data, data, objective=Causal(), packing=False)  # nor sorted by length
    trainer.train()
    assert logged(trainer, "loss") == pytest.approx(by_hand(4, 4, args.seed), rel=1e-5)
    scores = trainer.evaluate()
    assert scores["eval_tokens"] == sum(len(row) - 1 for row in DATA)
    predicted = trainer.predict(data)
    assert predicted.predictions.shape[::2] == (len(DATA), VOCABULARY) and predicted.label_ids.shape[0] == len(DATA)
    assert predicted.metrics["test_loss"] == pytest.approx(scores["eval_loss"])


def test_what_it_predicts_has_to_be_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Own is known as neither; say which with objective=Causal\(\)"):
        LMTrainer(Own(), arguments(tmp_path), MemoryLayout(DATA))


class Makes:
    """An optimizer's maker that is an object, so that it has no name."""

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adagrad(model.parameters(), lr=0.1)


def test_it_is_saved_and_gone_on_with_to_the_bit(tmp_path: Path) -> None:
    def made(folder: Path) -> LMTrainer:
        args = arguments(folder, max_steps=4, save_strategy="steps", save_steps=2, per_device_train_batch_size=4)
        return LMTrainer(Own(), args, MemoryLayout(DATA), objective=Causal(), make_optimizer=Makes())

    straight, resumed = made(tmp_path), made(tmp_path / "resumed")
    straight.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.state.global_step == 4
    assert all(torch.equal(weights(resumed.model)[name], value) for name, value in weights(straight.model).items())
    straight.save_model(str(tmp_path / "model"))
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as kept:
        assert set(kept.keys()) == {"wte.weight", "wpe.weight", "mix.weight", "mix.bias"}


def test_a_model_that_is_made_for_each_training(tmp_path: Path) -> None:
    losses = []
    trainer = LMTrainer(None, arguments(tmp_path, max_steps=2), MemoryLayout(DATA), model_init=lambda: llama())
    for _ in range(2):
        trainer.train()
        assert trainer.fast_paths.decisions["head"]["choice"] == "predicted positions"
        losses.append(logged(trainer, "loss"))
    assert losses[0] == losses[1] and logged(trainer, "mfu")
