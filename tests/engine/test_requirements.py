"""What a run needs and this machine lacks is found before anything is written, all of it at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from lmtrain.config.options import DataOptions, MaskingOptions, ModelOptions, Resolved, RunOptions
from lmtrain.core.errors import UserError
from lmtrain.engine import requirements
from lmtrain.engine.arguments import (
    LMTrainingArguments,
    _backend,
    examples_of_a_step,
    require_a_step,
    training_arguments,
)
from lmtrain.engine.requirements import check_requirements
from lmtrain.engine.speed.precision import Decision
from lmtrain.engine.trainer import LMTrainer
from tiny import MemoryLayout, arguments, gpt2, llama, rows

FP32 = Decision("fp32", "as asked")


def resolved(folder: Path, **training: Any) -> Resolved:
    training = {"output_dir": str(folder / "out"), "do_train": True, "use_cpu": True, **training}
    return Resolved("clm", ModelOptions(), DataOptions(), MaskingOptions(), RunOptions(), training)


def problems(folder: Path, **training: Any) -> dict[str | None, str]:
    try:
        check_requirements(resolved(folder, **training), FP32, torch.nn.Linear(2, 2))
    except UserError as error:
        return {problem.flag: problem.text for problem in error.problems}
    finally:
        assert not (folder / "out").exists(), "looking makes nothing"
    return {}


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 2},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 2}},
        {"optim": "adafactor", "learning_rate": 0.0},
        {"torch_compile_backend": "inductor"},
    ],
)
def test_what_is_fine(tmp_path: Path, training: dict[str, Any]) -> None:
    assert problems(tmp_path, **training) == {}


@pytest.mark.parametrize(
    ("training", "flag", "said"),
    [
        ({"report_to": ["trackr"]}, "--report_to", "tensorboard"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "--lr_scheduler_type", "min_lr"),
        ({"lr_scheduler_kwargs": {"foo": 1}}, "--lr_scheduler_kwargs", "foo"),
        ({"optim": "galore_adamw"}, "--optim", "galore"),
        ({"torch_compile_backend": "inductr"}, "--torch_compile_backend", "inductor"),
        ({"fsdp": "full_shard"}, "--fsdp", "leave out --fsdp"),
        ({"ddp_backend": "nccl"}, "--ddp_backend", "give gloo"),
    ],
)
def test_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: dict[str, Any], flag: str, said: str
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    found = problems(tmp_path, **training)
    assert list(found) == [flag]
    assert said in found[flag]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_whose_package_is_missing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    said = f"{name} needs a package that is not installed: pip install {name}"
    assert problems(tmp_path, report_to=[name]) == {"--report_to": said}


def test_on_cpus_nothing_is_sharded_under_a_launcher_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate would leave the model whole there without a word; --use_cpu need not be given for that."""
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    found = problems(tmp_path, fsdp=True, use_cpu=False)
    assert list(found) == ["--fsdp"] and "divides the model over GPUs" in found["--fsdp"]


def test_sharding_needs_a_launcher_where_there_are_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    assert "torchrun --nproc_per_node N -m lmtrain clm" in problems(tmp_path, fsdp=True, use_cpu=False)["--fsdp"]


def test_uploading_needs_a_hub_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached" in problems(tmp_path, push_to_hub=True)["--push_to_hub"]


def test_everything_missing_comes_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, report_to=["trackr"], lr_scheduler_type="cosine_with_min_lr", torch_compile_backend="x")
    assert found.keys() == {"--report_to", "--lr_scheduler_type", "--torch_compile_backend"}


def test_an_epoch_without_a_full_batch_is_no_training(tmp_path: Path) -> None:
    dropping = training_arguments(resolved(tmp_path, dataloader_drop_last=True), FP32)
    require_a_step(dropping, 8)
    with pytest.raises(UserError, match="at most --per_device_train_batch_size 7"):
        require_a_step(dropping, 7)
    require_a_step(training_arguments(resolved(tmp_path), FP32), 7)
    with pytest.raises(UserError, match="7 examples are fewer than one batch of 8"):
        LMTrainer(llama(), arguments(tmp_path, dataloader_drop_last=True), MemoryLayout(rows(7))).train()


def test_processes_that_would_each_train_alone_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate takes them for that on GPUs without a LOCAL_RANK, and on CPUs that it is not told of."""
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    alone = TrainingArguments(str(tmp_path), report_to="none")
    with pytest.raises(UserError, match="takes each of the 2 processes for the only one"):
        LMTrainer(llama(), alone, MemoryLayout(rows(4)))


@pytest.mark.parametrize(
    ("said", "values", "backend"),
    [
        ({}, {}, None),
        ({"LOCAL_RANK": "1"}, {}, "nccl"),
        ({"LOCAL_RANK": "0"}, {"ddp_backend": "gloo"}, "gloo"),
        ({"LOCAL_RANK": "0"}, {"use_cpu": True}, "gloo"),
        ({"LOCAL_RANK": "0", "ACCELERATE_USE_CPU": "true"}, {}, "gloo"),
        ({"LOCAL_RANK": "0"}, {"deepspeed": "zero2.json"}, "nccl"),
        ({"LOCAL_RANK": "0"}, {"fsdp": True}, "cuda:nccl,cpu:gloo"),
        ({"LOCAL_RANK": "0", "ACCELERATE_USE_FSDP": "true"}, {"ddp_backend": "nccl"}, "cuda:nccl,cpu:gloo"),
    ],
)
def test_what_joins_the_processes_of_a_machine_with_gpus(
    said: dict[str, str], values: dict[str, Any], backend: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library's own group would lie where torchrun keeps that of the processes that died."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert _backend(values) == backend


@pytest.mark.parametrize("by", ["--fsdp_config", "accelerate"])
def test_layers_are_not_computed_again_with_other_dropout(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "_accelerator", lambda resolved: None)  # here is no GPU
    options = {}
    if by == "accelerate":
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        monkeypatch.setenv("FSDP_ACTIVATION_CHECKPOINTING", "true")
    else:
        options = {"fsdp": True, "fsdp_config": {"version": 2, "activation_checkpointing": True}}
        if getattr(arguments(tmp_path, **options), "fsdp_plugin_args", None) is None:
            pytest.skip("this version of transformers tells Accelerate by its environment")
    check_requirements(resolved(tmp_path, **options), FP32, gpt2())
    with pytest.raises(UserError, match="--fsdp_config: activation_checkpointing of FSDP draws other dropout"):
        check_requirements(resolved(tmp_path, **options), FP32, gpt2(dropout=0.1))


def test_conflicts_that_only_the_library_knows_are_told_as_such(tmp_path: Path) -> None:
    twice = {"gradient_accumulation_kwargs": {"num_steps": 2}}
    args = arguments(tmp_path, gradient_accumulation_steps=2, accelerator_config=twice)
    with pytest.raises(UserError, match=r"do not fit together: .*num_steps"):
        LMTrainer(llama(), args, MemoryLayout(rows(4)))


def test_of_several_gpus_without_a_launcher_one_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first on: a step worked out for all of them would be several times too large."""
    plain = LMTrainingArguments.__post_init__

    def with_three(self: LMTrainingArguments) -> None:
        plain(self)
        self._n_gpu = 3

    monkeypatch.setattr(LMTrainingArguments, "__post_init__", with_three)
    made = training_arguments(
        resolved(tmp_path, dataloader_drop_last=True, per_device_train_batch_size=4, gradient_accumulation_steps=2),
        FP32,
    )
    assert (made.n_gpu, made.train_batch_size, examples_of_a_step(made)) == (1, 4, 8)
    require_a_step(made, 4)


@pytest.mark.parametrize(
    ("metric", "greater"), [("loss", False), ("perplexity", False), ("eval_bits_per_byte", False), ("accuracy", True)]
)
def test_the_best_perplexity_is_the_lowest(tmp_path: Path, metric: str, greater: bool) -> None:
    made = training_arguments(resolved(tmp_path, metric_for_best_model=metric), FP32)
    assert made.greater_is_better is greater
    asked = training_arguments(resolved(tmp_path, metric_for_best_model=metric, greater_is_better=not greater), FP32)
    assert asked.greater_is_better is not greater


def test_saving_the_best_goes_by_the_loss_unless_told(tmp_path: Path) -> None:
    best = {"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 2}
    made = training_arguments(resolved(tmp_path, **best), FP32)
    assert (made.metric_for_best_model, made.greater_is_better) == ("loss", False)


def test_bf16_on_a_cpu_is_not_taken_for_a_missing_gpu(tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    without = resolved(tmp_path)
    del without.training["use_cpu"]
    assert training_arguments(without, Decision("bf16", "this CPU is fast at it")).bf16


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_a_launcher_s_configuration_that_divides_the_model_is_refused_on_cpus(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    assert not problems(tmp_path)
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    assert f"accelerate launch asks for {name.lower()}" in str(problems(tmp_path))
