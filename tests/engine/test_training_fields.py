"""Fields of ``TrainingArguments`` that change how a training runs: seen at work, not only as a value that arrived."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.debug_utils import DebugUnderflowOverflow

from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, gpt2, rows

_SET = (
    "CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC",
    "FLASH_ATTENTION_DETERMINISTIC", "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE",
)  # fmt: skip


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the library sets for the whole process."""
    for name in _SET:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    cudnn.deterministic, cudnn.benchmark = before[1:]


def made(folder: Path, **options: Any) -> LMTrainer:
    args = arguments(folder, **{"max_steps": 1, "per_device_train_batch_size": 4, **options})
    return LMTrainer(gpt2(), args, MemoryLayout(rows(8)), objective=Causal())


@pytest.mark.parametrize("asked", [False, True])
def test_full_determinism(asked: bool, tmp_path: Path) -> None:
    made(tmp_path, full_determinism=asked).train()
    assert torch.are_deterministic_algorithms_enabled() is asked


def test_debug_looks_at_every_module(tmp_path: Path) -> None:
    trainer = made(tmp_path, debug="underflow_overflow")
    trainer.train()
    for module in trainer.model.modules():
        watching = [getattr(hook, "__self__", None) for hook in module._forward_hooks.values()]
        assert any(isinstance(each, DebugUnderflowOverflow) for each in watching)


def test_the_mode_of_the_compiler(tmp_path: Path) -> None:
    trainer = made(tmp_path, torch_compile_mode="reduce-overhead")
    assert trainer.args.torch_compile
    plugin = trainer.accelerator.state.dynamo_plugin
    assert (plugin.mode, str(plugin.backend.value).lower()) == ("reduce-overhead", "inductor")
