"""What a training leaves, where DeepSpeed's ZeRO-3 or FSDP2 holds its weights in parts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import extract_model_from_parallel
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.integrations import deepspeed

from lmtrain.config.options import DataOptions, MaskingOptions, ModelOptions, Resolved, RunOptions
from lmtrain.core.console import silent
from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json
from lmtrain.engine.exporting import export_trained, require_gathering
from lmtrain.engine.runs.run_folder import RunFolder
from lmtrain.engine.trainer import LMTrainer
from tiny import MemoryLayout, arguments, llama, rows

GATHERS = "stage3_gather_16bit_weights_on_model_save"


def zero(stage: int, **settings: Any) -> HfDeepSpeedConfig:
    return HfDeepSpeedConfig({"zero_optimization": {"stage": stage, **settings}})


def test_weights_that_nothing_would_gather_at_the_end_are_not_trained() -> None:
    def trained_with(config: HfDeepSpeedConfig | None) -> Any:
        plugin = None if config is None else SimpleNamespace(hf_ds_config=config)
        return SimpleNamespace(accelerator=SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin)))

    for config in (None, zero(2), zero(3, **{GATHERS: True}), zero(3, **{GATHERS.replace("16bit", "fp16"): True})):
        require_gathering(trained_with(config))
    for config in (zero(3), zero(3, **{GATHERS: False})):
        with pytest.raises(UserError, match=f"--deepspeed: .*{GATHERS}"):
            require_gathering(trained_with(config))


def test_what_is_written_is_read_back_by_one_process(tmp_path: Path) -> None:
    """While ZeRO-3 trains, transformers cuts all that it reads over all processes, and the others do not read."""
    trainer = LMTrainer(llama(), arguments(tmp_path / "nowhere"), MemoryLayout(rows(4)))
    resolved = Resolved("clm", ModelOptions(), DataOptions(), MaskingOptions(), RunOptions(), {})
    configuration = zero(3)
    deepspeed.set_hf_deepspeed_config(configuration)  # as TrainingArguments(deepspeed=...) does
    try:
        with RunFolder(tmp_path / "run") as run:
            export_trained(trainer, resolved, None, run, silent)
        assert deepspeed.is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_model_that_was_compiled_before_it_was_sharded(tmp_path: Path) -> None:
    """As Accelerate does it with --torch_compile: its outermost weights are gathered for the compiled model alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        compiled: Any = torch.compile(llama(), backend="eager")
        for part in (*compiled.model.layers, compiled):
            fully_shard(part, mesh=init_device_mesh("cpu", (1,)))
        accelerator = SimpleNamespace(unwrap_model=extract_model_from_parallel)
        trainer: Any = SimpleNamespace(accelerator=accelerator, model=compiled, exported={})
        resolved = Resolved("clm", ModelOptions(), DataOptions(), MaskingOptions(), RunOptions(), {})
        with RunFolder(tmp_path / "run") as run:
            export_trained(trainer, resolved, None, run, silent)
    finally:
        torch.distributed.destroy_process_group()
    assert read_json(tmp_path / "run" / "export.json")["compared"]["logits"] > 1000
    assert read_json(tmp_path / "run" / "config.json")["architectures"] == ["LlamaForCausalLM"]
