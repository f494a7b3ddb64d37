"""Options of the training itself, where they contradict each other: batch, precision, optimizer, schedule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lmtrain.config.global_batch import check_global_batch
from lmtrain.config.muon import MuonArgs
from lmtrain.config.options import (
    Resolved,
)
from lmtrain.config.sharding import KINDS, launcher_sharding, sharding_of
from lmtrain.config.values import user_path
from lmtrain.core.errors import Problems

# What an evaluation ends in, and whether more of it is better (see engine/evaluation.py).
SCORES = {
    "loss": False, "perplexity": False, "bits_per_byte": False, "accuracy": True,
    "loss_with_keys": False, "loss_without_keys": False,
}  # fmt: skip


def check_batch(options: Resolved, problems: Problems) -> None:
    given, run = options.training, options.run
    check_global_batch(options, problems)
    if run.batch_tokens is not None:
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
            if name in given:
                problems.add(f"sizes the step, and so does --{name}; give one of them", flag="--batch_tokens")
    sharding = sharding_of(given)
    if sharding and options.data.isolate_documents:
        problems.add(
            f"is proven on the whole model in one process, and {sharding.who} divides it; leave it out, or "
            f"{sharding.without}",
            flag="--isolate_documents",
        )
    if sharding and (run.auto_batch or run.batch_tokens is not None):
        flag = "--auto_batch" if run.auto_batch else "--batch_tokens"
        problems.add(
            f"tries the whole model in one process, and {sharding.who} divides it; give --per_device_train_batch_size "
            "and --gradient_accumulation_steps",
            flag=flag,
        )


def check_precision(options: Resolved, problems: Problems) -> None:
    wanted, set_ = options.run.precision, options.training
    if set_.get("bf16") and set_.get("fp16"):
        problems.add("--fp16 is given too; choose one, or leave it to --precision auto", flag="--bf16")
        return
    for name in ("bf16", "fp16"):
        if name not in set_ or wanted == "auto":
            continue
        if set_[name] != (wanted == name):
            state = "on" if set_[name] else "off"
            problems.add(
                f"{wanted} contradicts --{name}, which is switched {state}; give one of them",
                flag="--precision",
            )
    if set_.get("tf32") and set_.get("use_cpu"):
        problems.add("TF32 is a format of NVIDIA's GPUs, and --use_cpu is given", flag="--tf32")


def check_muon(given: dict[str, Any], problems: Problems) -> None:
    sharding = sharding_of(given)
    if sharding and sharding.by_launcher:
        problems.add(
            f"muon steps whole matrices, and {sharding.who} cuts them into pieces behind its back; take an AdamW, or "
            f"{sharding.without}",
            flag="--optim",
        )
    elif sharding:
        problems.add(
            "cuts the matrices into pieces behind the optimizer's back, and --optim muon needs each whole; leave out "
            "one of the two",
            flag=f"--{sharding.kind}",
        )
    if given.get("optim_target_modules"):
        problems.add("belongs to optimizers such as galore_adamw, not to --optim muon", flag="--optim_target_modules")
    if not given.get("optim_args") or all("=" in pair for pair in given["optim_args"].split(",")):
        with problems.collect():  # what is no pair at all is reported with the schedule
            MuonArgs.parse(given.get("optim_args"))


def check_schedule(options: Resolved, problems: Problems) -> None:
    """Conflicts that ``TrainingArguments`` would find too, but seconds later and one at a time."""
    given = options.training
    strategy = given.get("eval_strategy", "no")
    if options.run.train_tokens is not None:
        for name in ("num_train_epochs", "max_steps"):
            if name in given:
                problems.add(f"says how long to train, and so does --{name}; give one of them", flag="--train_tokens")
    if given.get("max_steps") == 0:
        problems.add("0 steps is no training; give at least 1, or evaluate with lmtrain evaluate", flag="--max_steps")
    for name in ("logging_steps", "eval_steps", "save_steps"):
        value = given.get(name)
        if isinstance(value, float) and value > 1 and not value.is_integer():
            problems.add(f"{value} is neither a whole number of steps nor a share of them below 1", flag=f"--{name}")
    settings = [pair.strip() for pair in str(given.get("optim_args") or "").split(",")]
    for pair in settings if given.get("optim_args") else []:
        if "=" not in pair:
            problems.add(f"{pair!r} is not of the form key=value (several: key=value,key=value)", flag="--optim_args")
    if strategy == "no":
        for name, value in (("lr_scheduler_type", "reduce_lr_on_plateau"), ("lr_scheduler_type", "greedy")):
            if given.get(name) == value:
                problems.add(f"{value} follows the evaluation loss; add --eval_strategy steps", flag=f"--{name}")
    _metric(options, given.get("metric_for_best_model"), problems)
    if strategy == "no" and given.get("save_strategy") == "best":
        problems.add("best needs evaluations to choose by; add --eval_strategy steps", flag="--save_strategy")
    if given.get("load_best_model_at_end"):
        _best_model(given, strategy, problems)
    if options.run.early_stopping_patience is not None and strategy == "no":
        problems.add("counts evaluations; add --eval_strategy steps", flag="--early_stopping_patience")
    if "dataloader_prefetch_factor" in given and not given.get("dataloader_num_workers"):
        problems.add("needs worker processes; add --dataloader_num_workers 2", flag="--dataloader_prefetch_factor")
    if given.get("dataloader_persistent_workers") and not given.get("dataloader_num_workers"):
        problems.add("needs worker processes; add --dataloader_num_workers 2", flag="--dataloader_persistent_workers")
    if given.get("use_cpu") and given.get("fsdp"):
        problems.add(
            "shards over GPUs only: on CPUs Accelerate would silently leave the model whole; leave out "
            "--fsdp or --use_cpu",
            flag="--fsdp",
        )
    if given.get("use_cpu") and given.get("deepspeed"):
        problems.add("divides a model over GPUs; leave out --deepspeed or --use_cpu", flag="--deepspeed")
    if given.get("use_cpu") and given.get("ddp_backend") == "nccl":
        problems.add("nccl joins GPUs; leave out --ddp_backend or --use_cpu", flag="--ddp_backend")
    if given.get("fsdp") and given.get("deepspeed"):
        problems.add("does the same work as --deepspeed; give one of them", flag="--fsdp")
    _launcher(given, problems)
    if given.get("fsdp_config") and not given.get("fsdp"):
        problems.add("has no effect without --fsdp", flag="--fsdp_config")
    for name in ("hub_model_id", "hub_revision", "hub_private_repo"):
        if given.get(name) is not None and not given.get("push_to_hub"):
            problems.add("has no effect without --push_to_hub", flag=f"--{name}")
    _json_files(given, problems)


def _launcher(given: dict[str, Any], problems: Problems) -> None:
    """What ``accelerate launch`` asks for, beside the options."""
    asked = launcher_sharding()
    if asked is None:
        return
    if given.get("use_cpu"):
        problems.add(
            f"{asked.who} divides a model over GPUs, and on CPUs Accelerate would silently leave it whole; leave out "
            f"--use_cpu, or {asked.without}",
            flag="--use_cpu",
        )
    for kind in KINDS:
        if given.get(kind) and kind != asked.kind:
            problems.add(f"does the same work as {asked.who}; leave out --{kind}, or {asked.without}", flag=f"--{kind}")


def _metric(options: Resolved, name: str | None, problems: Problems) -> None:
    """The library would only miss a score after the first evaluation."""
    without = {"bits_per_byte"} if options.command != "clm" else set()
    without |= {score for score in SCORES if score.endswith("_keys") and not options.keys.words}
    known = [score for score in SCORES if score not in without]
    if name is not None and name.removeprefix("eval_") not in known:
        problems.add(
            f"evaluation has no score {name!r}; choose one of {', '.join(known)}", flag="--metric_for_best_model"
        )


def _best_model(given: dict[str, Any], strategy: str, problems: Problems) -> None:
    flag = "--load_best_model_at_end"
    if strategy == "no":
        problems.add("needs evaluations to choose by; add --eval_strategy steps", flag=flag)
    elif given.get("save_strategy", "steps") == "no":
        problems.add("needs checkpoints to load from, and --save_strategy is no; leave out one of the two", flag=flag)


def _json_files(given: dict[str, Any], problems: Problems) -> None:
    """Settings that are a JSON object or the path of a JSON file."""
    for name in _paths_of(given, ("deepspeed", "fsdp_config")):
        path = user_path(given[name])
        if not path.is_file():
            problems.add(f"no such file: {given[name]} (nor is it a JSON object)", flag=f"--{name}")
    for name in _paths_of(
        given,
        ("lr_scheduler_kwargs", "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"),
    ):
        problems.add(f"{given[name]!r} is not a JSON object such as '{{\"key\": 1}}'", flag=f"--{name}")


def _paths_of(given: dict[str, Any], names: Iterable[str]) -> list[str]:
    return [name for name in names if isinstance(given.get(name), str)]
