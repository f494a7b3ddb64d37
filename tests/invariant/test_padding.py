"""Rows laid end to end train as padded rows do: the same losses, gradients and weights, step by step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from architectures import tiny
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal, Masked, Objective
from tiny import VOCABULARY, MemoryLayout, arguments, logged, rows, try_fast_paths, weights

DATA = rows(21, shortest=2, longest=14)
MASKED = Masked(4, VOCABULARY, special_ids=(0, 1, 2, 3, 4), probability=0.3)


def trained(kind: str, objective: Objective, folder: Path, **options: Any) -> LMTrainer:
    args = arguments(
        folder,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        optim="sgd",  # its update is proportional to the gradient, where Adam's would hide a wrong scale
        learning_rate=0.05,
        max_grad_norm=0,
    )
    trainer = try_fast_paths(LMTrainer(tiny(kind), args, MemoryLayout(DATA), objective=objective, **options))
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("kind", "objective"),
    [("llama", Causal()), ("gpt2", Causal()), ("opt", Causal()), ("bert", MASKED), ("modernbert", MASKED)],
    ids=["llama", "gpt2", "opt", "bert", "modernbert"],
)
def test_packed_rows_train_as_padded_ones(kind: str, objective: Objective, tmp_path: Path) -> None:
    packed = trained(kind, objective, tmp_path)
    padded = trained(kind, objective, tmp_path, packing=False)
    assert packed.fast_paths.packing is not None and padded.fast_paths.packing is None
    assert logged(packed, "loss") == pytest.approx(logged(padded, "loss"), rel=1e-5)
    assert logged(packed, "grad_norm") == pytest.approx(logged(padded, "grad_norm"), rel=1e-5)
    assert packed.state.num_input_tokens_seen == padded.state.num_input_tokens_seen
    for name, value in weights(padded.model).items():
        torch.testing.assert_close(weights(packed.model)[name], value, rtol=1e-4, atol=1e-6)


def test_a_model_that_cannot_has_like_lengths_together(tmp_path: Path) -> None:
    trainer = trained("mamba", Causal(), tmp_path)
    assert trainer.fast_paths.packing is None and trainer.fast_paths.by_length
    assert "like length" in " ".join(trainer.fast_paths.lines)
    steps = [trainer.train_dataset.reads[i : i + 8] for i in range(0, 16, 8)]
    lengths = [[len(DATA[i]) for i in step] for step in steps]
    assert all(length == sorted(length) for length in lengths)


def test_what_was_decided_is_taken_over(tmp_path: Path) -> None:
    first = trained("bert", MASKED, tmp_path)
    again = trained("bert", MASKED, tmp_path, decided=first.fast_paths.decisions)
    assert again.fast_paths.packing == first.fast_paths.packing
    assert again.fast_paths.decisions == first.fast_paths.decisions
    assert logged(again, "loss") == logged(first, "loss")
    other = {**first.fast_paths.decisions, "packing": {"way": "none"}, "head": {"choice": "all positions"}}
    plain = trained("bert", MASKED, tmp_path, decided=other)
    assert plain.fast_paths.packing is None and plain.fast_paths.scoring.head is None
