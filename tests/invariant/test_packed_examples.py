"""Packing changes where tokens lie, and nothing else: losses and gradients are those of the examples run alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from architectures import CAUSAL, MASKED, VOCABULARY, tiny
from lmtrain.data.layouts import Blocks
from lmtrain.data.store import TokenStore
from lmtrain.data.store_writer import StoreWriter
from lmtrain.engine.batches.collate import Collate, EpochExamples
from lmtrain.engine.batches.packed import Packing
from lmtrain.models import isolation as ways
from lmtrain.models.isolation_proof import prove_isolation
from lmtrain.objectives import Causal, Masked, Objective, model_loss_sums
from tiny import MemoryLayout

WITHOUT = {"bloom", "mamba", "deberta-v2"}
DATA = [
    np.random.default_rng(n).integers(5, VOCABULARY, n).tolist() for n in (31, 2, 17, 1, 9, 40, 12, 5)
]  # one longer than the windows of 8, one of a single token


def objective_of(kind: str) -> Objective:
    return Causal() if kind in CAUSAL else Masked(3, VOCABULARY, special_ids=(0, 1, 2, 3), probability=0.3)


def loss_and_gradients(model: Any, batches: list[dict[str, Any]], objective: Objective) -> tuple[float, dict[str, Any]]:
    model.zero_grad()
    losses = [model_loss_sums(model, batch, objective, dtype=torch.float64)[0].loss for batch in batches]
    total = torch.stack(losses).sum()
    total.backward()
    return total.item(), {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}


def assert_equal(one: tuple[float, dict[str, Any]], other: tuple[float, dict[str, Any]], bound: float) -> None:
    assert one[0] == pytest.approx(other[0], rel=bound)
    assert one[1].keys() == other[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in other[1].values())
    for name, gradient in other[1].items():
        assert float((one[1][name] - gradient).abs().max()) <= bound * largest, name


@pytest.mark.parametrize(
    ("packing", "wide"), [(Packing(40.0), 256), (Packing(one_row=True), 256), (Packing(one_row=True), 32)],
    ids=["rows", "one row", "pieces"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [kind for kind in [*CAUSAL, *MASKED] if kind not in WITHOUT])
def test_loss_and_every_gradient_are_those_of_separate_examples(
    kind: str, packing: Packing, wide: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(ways, "_WIDE", wide)
    model, objective = tiny(kind).double().eval(), objective_of(kind)
    examples = EpochExamples(MemoryLayout(DATA), epoch=0)
    isolation = prove_isolation(model, examples.__getitems__(range(len(DATA))).examples, causal=objective.shifted)
    assert isolation.possible, isolation.reason
    collate = Collate(objective, packing=packing)
    packed = collate(examples.__getitems__(range(len(DATA))))
    assert "segments" in packed and (len(packed["segments"]) == 1) == packing.one_row
    alone = [Collate(objective)(examples[i]) for i in range(len(DATA)) if len(DATA[i]) > 1 or not objective.shifted]
    together = loss_and_gradients(model, [isolation.isolate(packed)], objective)
    # RoPE and root-mean-square norms are computed in fp32 in some models, whatever the weights are.
    assert_equal(together, loss_and_gradients(model, alone, objective), 1e-6)


@pytest.mark.parametrize(
    ("kind", "way"),
    [*((kind, "") for kind in ("gpt2", "llama", "mistral", "gemma2", "opt", "bert", "modernbert")),
     *((kind, "pieces") for kind in ("gpt2", "llama", "opt", "bert"))],
)  # fmt: skip
def test_isolated_documents_of_blocks_are_separate_examples(
    kind: str, way: str, tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(ways, "_WIDE", 32 if way else 256)
    documents = [[*ids[: n % 19 + 1]] for n, ids in enumerate(DATA * 2)]
    tmp_path.mkdir(exist_ok=True)
    with StoreWriter(tmp_path, 1000) as writer:
        for ids in documents:
            writer.append(np.array(ids, np.uint32), np.array([0, len(ids)]), [True], [len(ids)], [0])
        writer.finish({"key": "", "sources": []})
    blocks = Blocks(TokenStore.open(tmp_path), np.arange(len(documents)), 20, (), (2,), drop_remainder=False,
                    isolate_documents=True)  # fmt: skip
    model, objective = tiny(kind).double().eval(), objective_of(kind)
    rows = EpochExamples(blocks, epoch=0).__getitems__(range(len(blocks)))
    examples = rows.examples
    isolation = prove_isolation(model, examples, causal=objective.shifted)
    assert isolation.possible and way in isolation.way
    batch = Collate(objective)(rows)
    together = loss_and_gradients(model, [isolation.isolate(batch)], objective)
    alone = []
    for row, numbers in enumerate(examples.segments):
        for number in range(1, numbers.max() + 1):
            here = torch.from_numpy(np.nonzero(numbers == number)[0])
            part = {name: batch[name][row, here][None] for name in ("input_ids", "labels")}
            if len(here) > 1 or not objective.shifted:
                alone.append(part)
    assert_equal(together, loss_and_gradients(model, alone, objective), 1e-6)
    joined = loss_and_gradients(model, [{name: batch[name] for name in ("input_ids", "labels")}], objective)
    assert joined[0] != pytest.approx(together[0], rel=1e-3), "isolation makes a difference"
