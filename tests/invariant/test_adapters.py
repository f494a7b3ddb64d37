"""With an adapter, too, the same step is the same step: however it is cut or packed (or shared: test_processes.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import options, stirred
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.adapters.lora import adapt
from lmtrain.models.adapters.merged_lora import adapted_attention, merged_lora
from lmtrain.objectives import Causal, Masked
from tiny import VOCABULARY, MemoryLayout, arguments, bert, gpt2, llama, logged, rows

pytest.importorskip("peft")

DATA = rows(21, shortest=2, longest=14)
MASKED = Masked(4, VOCABULARY, special_ids=(0, 1, 2, 3, 4), probability=0.3)


def merged(frozen: torch.dtype | None) -> Any:
    return merged_lora(gpt2(), 2, 8, frozen=frozen)


MAKE: dict[str, Any] = {
    "gpt2": (lambda frozen: adapt(gpt2(), options(), frozen=frozen), Causal()),
    "llama": (lambda frozen: adapt(llama(), options(), frozen=frozen), Causal()),
    "llama, new rows": (lambda frozen: adapt(llama(), options(), rows_before=60, frozen=frozen), Causal()),
    "bert": (lambda frozen: adapt(bert(), options(), frozen=frozen), MASKED),
    "query and value": (merged, Causal()),
}


def train(kind: str, folder: Path, batch: int, *, low: bool = False, **others: Any) -> LMTrainer:
    make, objective = MAKE[kind]
    torch.manual_seed(0)
    model = stirred(make(torch.bfloat16 if low else None))
    if kind == "query and value":
        with torch.no_grad():
            for layer in adapted_attention(model):
                b = layer.lora_B["default"]
                b.weight.masked_fill_(~b.blocks, 0.0)
    arguments_ = arguments(
        folder,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=8 // batch,
        num_train_epochs=2,
        optim="sgd",
        learning_rate=0.05,
        max_grad_norm=0.5,
        bf16=low,
    )
    trainer = LMTrainer(model, arguments_, MemoryLayout(DATA), objective=objective, **others)
    trainer.train()
    assert trainer.fast_paths.scoring.head is not None, "the head is computed where there is a label"
    return trainer


def trained(trainer: LMTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in trainer.model.named_parameters() if value.requires_grad}


def assert_alike(one: LMTrainer, other: LMTrainer, bound: float) -> None:
    mine, right = trained(one), trained(other)
    assert mine.keys() == right.keys()
    for name, value in right.items():
        torch.testing.assert_close(mine[name], value, rtol=bound, atol=bound)


@pytest.mark.parametrize("kind", MAKE)
def test_however_a_step_is_cut(kind: str, tmp_path: Path) -> None:
    whole = train(kind, tmp_path, 8)
    for batch in (4, 1):
        cut = train(kind, tmp_path, batch)
        assert logged(cut, "grad_norm") == pytest.approx(logged(whole, "grad_norm"), rel=1e-4)
        assert_alike(cut, whole, 1e-5)
    if kind == "query and value":
        for layer in adapted_attention(whole.model):
            b = layer.lora_B["default"]
            assert not b.weight[~b.blocks].any()


@pytest.mark.parametrize("kind", MAKE)
def test_packed_or_padded(kind: str, tmp_path: Path) -> None:
    packed, padded = train(kind, tmp_path, 8), train(kind, tmp_path, 8, packing=False)
    assert packed.fast_paths.packing is not None and padded.fast_paths.packing is None
    assert_alike(packed, padded, 1e-5)


@pytest.mark.parametrize("kind", MAKE)
def test_frozen_weights_in_bf16_train_the_same_adapter(kind: str, tmp_path: Path) -> None:
    """To the bit: autocast rounds them so at every use."""
    make, objective = MAKE[kind]
    found = []
    for frozen in (None, torch.bfloat16):
        torch.manual_seed(0)
        model = stirred(make(frozen))
        args = arguments(tmp_path, per_device_train_batch_size=4, max_steps=4, bf16=True)
        trainer = LMTrainer(model, args, MemoryLayout(DATA), objective=objective)
        trainer.train()
        found.append(trained(trainer))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
