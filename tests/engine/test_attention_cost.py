"""A run says what dropout of attention weights costs it, where that is much."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lmtrain.engine import attention_cost
from lmtrain.engine.attention_cost import what_attention_dropout_costs
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, gpt2, rows


def lines(folder: Path, dropout: float) -> list[str]:
    trainer = LMTrainer(gpt2(dropout=dropout), arguments(folder, per_device_train_batch_size=2), MemoryLayout(rows(4)))
    splits = {"train": SimpleNamespace(lengths=np.full(4, 512))}
    parts: Any = SimpleNamespace(
        model=trainer.model,
        corpus=SimpleNamespace(splits=splits),
        objective=Causal(),
        device=torch.device("cpu"),
    )
    return what_attention_dropout_costs(trainer, parts)


def test_what_it_costs_is_said_where_it_is_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_cost, "_MATTERS", 0.0)  # how much it is here, a busy machine decides
    (line,) = lines(tmp_path, dropout=0.1)
    assert "which --attention_dropout 0 would gain" in line
    assert len(re.findall(r"[\d,]+(?= ms|, which)", line)) == 2
    assert lines(tmp_path, dropout=0.0) == []
    monkeypatch.setattr(attention_cost, "_MATTERS", 1e9)
    assert lines(tmp_path, dropout=0.1) == []
