"""Contexts and completions laid end to end, with an adapter: as if each pair were run alone, in fp32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmtrain.config.adapter import LoraOptions
from lmtrain.data.layouts import Pairs
from lmtrain.engine.batches.collate import Collate, EpochExamples
from lmtrain.engine.batches.packed import Packing
from lmtrain.engine.speed.scoring import Scoring
from lmtrain.models.adapters.lora import adapt
from lmtrain.models.adapters.merged_lora import merged_lora
from lmtrain.models.head import find_head
from lmtrain.models.isolation_proof import prove_isolation
from lmtrain.objectives import Causal, Completion, Objective, model_loss_sums
from tiny import VOCABULARY, gpt2, llama

random = np.random.default_rng(5)
CONTEXTS = [random.integers(1, VOCABULARY, n).tolist() for n in (9, 3, 17, 1, 12, 6)]
COMPLETIONS = [random.integers(1, VOCABULARY, n).tolist() for n in (4, 11, 2, 7, 1, 8)]


def adapted(kind: str) -> Any:
    """An adapter whose B is not zero, so that A has gradients too."""
    base: Any = llama() if kind == "llama" else gpt2()
    model: Any = merged_lora(base, 4, 32) if kind == "query and value" else adapt(base, LoraOptions(use_peft=True))
    torch.manual_seed(9)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    return model.eval()


def batch_of(
    completions: list[list[int]], objective: Objective, packing: Packing | None, only: slice = slice(None)
) -> dict[str, Tensor]:
    layout = Pairs.from_ids(CONTEXTS[only], completions[only], 64, suffix=(2,))
    return Collate(objective, packing=packing)(EpochExamples(layout, epoch=0).__getitems__(range(len(layout))))


def loss_and_gradients(model: Any, batches: list[dict[str, Tensor]], objective: Objective) -> tuple[float, Any]:
    """With the head at the scored positions alone where rows are packed, at all of them otherwise."""
    model.zero_grad()
    total = torch.zeros(())
    for batch in batches:
        if "segments" in batch:
            isolation = prove_isolation(model, _examples(), causal=True)
            total = total + Scoring(find_head(model))(model, isolation.isolate(batch), objective).loss
        else:
            total = total + model_loss_sums(model, batch, objective)[0].loss
    total.backward()
    return total.item(), {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def _examples() -> Any:
    layout = Pairs.from_ids(CONTEXTS, COMPLETIONS, 64, suffix=(2,))
    return EpochExamples(layout, epoch=0).__getitems__(range(len(layout))).examples


@pytest.mark.parametrize("objective", [Completion(), Causal()], ids=["completion", "joint"])
@pytest.mark.parametrize("kind", ["gpt2", "query and value", "llama"])
def test_loss_and_every_gradient_are_those_of_padded_and_of_separate_pairs(kind: str, objective: Objective) -> None:
    model = adapted(kind)
    packed = batch_of(COMPLETIONS, objective, Packing(one_row=True))
    assert packed["input_ids"].shape == (1, sum(map(len, CONTEXTS + COMPLETIONS)) + len(CONTEXTS))
    loss, gradients = loss_and_gradients(model, [packed], objective)
    assert gradients and all("lora" in name for name in gradients)
    alone = [batch_of(COMPLETIONS, objective, None, slice(i, i + 1)) for i in range(len(CONTEXTS))]
    for others in ([batch_of(COMPLETIONS, objective, None)], alone):
        right, expected = loss_and_gradients(model, others, objective)
        assert loss == pytest.approx(right, rel=1e-5)
        largest = max(float(gradient.abs().max()) for gradient in expected.values())
        for name, gradient in expected.items():
            assert float((gradients[name] - gradient).abs().max()) <= 1e-5 * largest, name


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_another_pair_changes_no_logit_of_its_neighbours(kind: str) -> None:
    model = adapted(kind)
    isolation = prove_isolation(model, _examples(), causal=True)
    changed = [[t % (VOCABULARY - 1) + 1 for t in ids] if n == 2 else ids for n, ids in enumerate(COMPLETIONS)]
    logits, segments = [], torch.empty(0)
    for completions in (COMPLETIONS, changed):
        batch = batch_of(completions, Completion(), Packing(one_row=True))
        segments = batch["segments"]
        inputs = {k: v for k, v in isolation.isolate(batch).items() if k != "labels"}
        with torch.no_grad():
            logits.append(model(**inputs).logits)
    differs = (logits[0] != logits[1]).any(-1)
    assert differs.any()
    assert segments[differs].unique().tolist() == [int(segments[differs][0])], "of one pair only"
