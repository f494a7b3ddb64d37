"""What the training options need, tried before anything is written.

The Trainer finds out late: a tracker that is not installed when the loop is set up, a schedule that lacks a setting
after the text was tokenized, a missing login with the hub when the first upload begins.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from transformers import TrainingArguments, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks, integration_utils

from lmtrain.config.options import Resolved
from lmtrain.config.sharding import KINDS, launcher_sharding
from lmtrain.config.values import YES, user_path
from lmtrain.core.errors import Problems, UserError, one_line
from lmtrain.engine.arguments import training_arguments
from lmtrain.engine.runs.uploading import destination_of
from lmtrain.engine.speed.machine import best_device
from lmtrain.engine.speed.precision import Decision
from lmtrain.engine.trainer import LMTrainer
from lmtrain.engine.trainer.sharding import require_no_dropout
from lmtrain.models.exporting.hub_upload import check_rights
from lmtrain.models.quiet import quiet_libraries

_PACKAGES = {"tensorboard": "'lmtrain[tensorboard]'", "trackio": "trackio", "wandb": "wandb"}  # of trackers


def check_requirements(resolved: Resolved, precision: Decision, model: Any) -> None:
    """Raise :class:`UserError` with everything that ``resolved`` asks for and cannot be had here.

    ``model`` is the one to be trained: some optimizers look at its parameters.
    """
    problems = Problems()
    for need in (_packages, _accelerator):
        with problems.collect():
            need(resolved)
    problems.raise_if_any()  # without them the arguments cannot even be made
    with quiet_libraries():
        arguments = training_arguments(resolved, precision)
        for check in (_trackers, _optimizer, _schedule, _compiler, _recomputing):
            with problems.collect():
                check(arguments, model)
        with problems.collect():
            _hub(resolved)
    problems.raise_if_any()


def _packages(resolved: Resolved) -> None:
    if resolved.training.get("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        raise UserError("needs the package deepspeed: pip install 'lmtrain[deepspeed]'", flag="--deepspeed")


def _accelerator(resolved: Resolved) -> None:
    """What needs GPUs and would be left out without a word where there are none (Accelerate 1.15)."""
    if best_device(use_cpu=bool(resolved.training.get("use_cpu"))).type == "cpu":
        _without_gpus(resolved)
    elif resolved.training.get("fsdp") and "LOCAL_RANK" not in os.environ:
        raise UserError(
            "shards a model over several processes, and this is one; start them with "
            f"torchrun --nproc_per_node N -m lmtrain {resolved.command} ...",
            flag="--fsdp",
        )


def _without_gpus(resolved: Resolved) -> None:
    problems = Problems()
    none = "there is none here" if best_device().type == "cpu" else "this run leaves them alone"
    for kind in KINDS:
        if resolved.training.get(kind):
            problems.add(
                f"divides the model over GPUs, and {none}; leave out --{kind}: processes on CPUs each hold "
                "the whole model",
                flag=f"--{kind}",
            )
    if asked := launcher_sharding():
        problems.add(
            f"accelerate launch asks for {asked.kind}, which divides the model over GPUs, and {none}; {asked.without}"
        )
    if resolved.training.get("ddp_backend") == "nccl":
        problems.add(f"nccl joins GPUs, and {none}; leave it out, or give gloo", flag="--ddp_backend")
    problems.raise_if_any()


def _trackers(arguments: TrainingArguments, model: Any) -> None:
    named: Any = arguments.report_to or []  # a list, once the arguments are made
    try:
        callbacks = get_reporting_integration_callbacks(named)
    except ValueError as error:
        raise UserError(one_line(error), flag="--report_to") from error
    for name, callback in zip(named, callbacks, strict=True):
        if _is_there(name):
            continue
        if package := _PACKAGES.get(name):
            raise UserError(f"{name} needs a package that is not installed: pip install {package}", flag="--report_to")
        _tried(callback, "--report_to")  # made only then, as some trackers begin to write when they are made


def _is_there(tracker: str) -> bool:
    """Asked of it alone where that is possible: to list all that are there, the library imports some of them."""
    asked = getattr(integration_utils, f"is_{tracker}_available", None)
    return bool(asked()) if asked else tracker in integration_utils.get_available_reporting_integrations()


def _optimizer(arguments: TrainingArguments, model: Any) -> None:
    flag = "--optim_args" if arguments.optim_args else "--optim"
    _tried(lambda: LMTrainer.get_optimizer_cls_and_kwargs(arguments, model), flag)


def _schedule(arguments: TrainingArguments, model: Any) -> None:
    """Make the schedule for one number in place of the model's weights."""
    settings: Any = arguments.lr_scheduler_kwargs or {}  # a mapping, once the arguments are made
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=arguments.learning_rate or 1.0)
    flag = "--lr_scheduler_kwargs" if settings else "--lr_scheduler_type"
    _tried(
        lambda: get_scheduler(
            arguments.lr_scheduler_type,
            optimizer,
            num_warmup_steps=1,
            num_training_steps=10,
            scheduler_specific_kwargs=settings,
        ),
        flag,
    )


def _compiler(arguments: TrainingArguments, model: Any) -> None:
    known = {backend.value.lower() for backend in DynamoBackend} - {"no"}
    backend = arguments.torch_compile_backend
    if backend is not None and backend.lower() not in known:
        raise UserError(f"{backend!r} is not one of {', '.join(sorted(known))}", flag="--torch_compile_backend")


def _recomputing(arguments: TrainingArguments, model: Any) -> None:
    sharding = launcher_sharding()
    by_launcher = sharding is not None and sharding.kind == "fsdp" and os.environ.get("FSDP_ACTIVATION_CHECKPOINTING")
    given = getattr(arguments, "fsdp_plugin_args", None) or {}
    if given.get("activation_checkpointing") or str(by_launcher).lower() in YES:
        require_no_dropout(model)


def _hub(resolved: Resolved) -> None:
    to = destination_of(resolved)
    if to is not None:
        check_rights(to.repo_id, to.token, folder=user_path(str(resolved.output_dir)))


def _tried(attempt: Callable[[], Any], flag: str) -> None:
    try:
        attempt()
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(one_line(error), flag=flag) from error
