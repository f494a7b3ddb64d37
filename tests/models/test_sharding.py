"""Weights of which each process holds a part: how large they are, and the format that they compute in."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_apply_ac, fsdp2_prepare_model
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from lmtrain.engine.speed.memory import needed_by
from lmtrain.models import describe
from lmtrain.models.flops import ModelFlops, Work
from lmtrain.models.sharding import count_of, gathered_dtype, is_sharded, shard
from lmtrain.rehearsal.footprint import saved_bytes
from tiny import gpt2, llama


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def first_of_two() -> Iterator[None]:
    """The first process of two, whose exchanges do nothing."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    torch.distributed.destroy_process_group()


def by_accelerate(model: Any, *, recomputes: bool) -> Any:
    """``model`` as Accelerate's FSDP2 prepares it for bf16 on GPUs."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="TRANSFORMER_BASED_WRAP", activation_checkpointing=recomputes,
        reshard_after_forward=True, cpu_ram_efficient_loading=False,
    )  # fmt: skip
    plugin.set_mixed_precision("bf16")
    plugin.set_auto_wrap_policy(model)
    accelerator: Any = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin), mixed_precision="bf16", is_main_process=True
    )
    if recomputes:
        model = fsdp2_apply_ac(accelerator, model)
    return fsdp2_prepare_model(accelerator, model)


def divided(model: Any) -> Any:
    """``model`` as ZeRO-3 leaves it on each of two processes: empty tensors, with what they stand for beside them."""
    for weight in model.parameters():
        weight.ds_shape, weight.ds_numel = weight.shape, weight.numel()
        weight.ds_tensor = weight.detach().flatten()[: -(-weight.numel() // 2)].clone()
        weight.data = torch.empty(0)
    return model


@pytest.mark.parametrize("recomputes", [False, True])
def test_the_format_that_layers_compute_in(recomputes: bool, alone: None) -> None:
    model = by_accelerate(llama(), recomputes=recomputes)
    assert is_sharded(model) and gathered_dtype(model) is torch.bfloat16
    assert all(isinstance(weight, DTensor) for weight in model.parameters()), "they are put away again"
    assert gathered_dtype(shard(llama())) is torch.float32
    rest = torch.nn.Sequential(torch.nn.Linear(4, 4))
    policy = torch.distributed.fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    assert gathered_dtype(torch.distributed.fsdp.fully_shard(rest, mp_policy=policy)) is torch.bfloat16


@pytest.mark.parametrize("made", [llama, gpt2])
def test_zero_3_hides_no_weight(made: Any) -> None:
    whole, work = made(), Work(48, 40, 900)
    for name, weight in whole.named_parameters():
        weight.requires_grad = "norm" not in name and "ln_" not in name
    whole_counts = count_of(whole), count_of(whole, trained=True)
    assert 0 < whole_counts[1] < whole_counts[0] == sum(weight.numel() for weight in whole.parameters())
    line, flops, needed = describe(whole), ModelFlops.of(whole, causal=True).step(work), needed_by(whole)
    saved = saved_bytes(whole)
    parts = divided(whole)
    assert (count_of(parts), count_of(parts, trained=True)) == whole_counts
    assert describe(parts) == line and saved_bytes(parts) == saved
    assert ModelFlops.of(parts, causal=True).step(work) == flops
    for what in ("weights", "gradients", "optimizer"):
        assert needed_by(parts)[what] == pytest.approx(needed[what] / 2, rel=0.01), "of one process"


def test_fsdp_hides_no_weight(first_of_two: None) -> None:
    whole = gpt2()
    counted, saved, needed = count_of(whole), saved_bytes(whole), needed_by(whole)["gradients"]
    parts = shard(whole)
    assert count_of(parts) == counted and saved_bytes(parts) == saved
    assert needed_by(parts)["gradients"] == pytest.approx(needed / 2, rel=0.05), "67 rows are 34 and 33"
