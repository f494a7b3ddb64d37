"""``TrainingArguments`` from what the user set and what was decided."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from accelerate.utils import DistributedType
from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from lmtrain.config import muon
from lmtrain.config.checks.steps import SCORES
from lmtrain.config.global_batch import division_of
from lmtrain.config.options import Resolved
from lmtrain.config.sharding import sharding_of
from lmtrain.config.treatment import TREATMENT
from lmtrain.config.values import YES
from lmtrain.core.errors import UserError
from lmtrain.core.launching import processes
from lmtrain.engine.distributed.meeting import make_group, wait_for_all
from lmtrain.engine.speed.precision import Decision

# Where our default differs from the Trainer's, and why. Whatever the user sets wins, unless config/ refused it.
OURS: dict[str, Any] = {
    "report_to": "none",  # nothing is sent anywhere, and no tracker is started, unless it is named
    "remove_unused_columns": False,  # our batches are made for the model; nothing is left to remove
    "logging_nan_inf_filter": False,  # a loss that is not a number is shown as what it is
    "disable_tqdm": True,  # progress is shown by engine.progress
    "prediction_loss_only": True,  # evaluation keeps running sums, never logits
    "logging_steps": TREATMENT["logging_steps"].default,
    "log_on_each_node": TREATMENT["log_on_each_node"].default,
    "log_level_replica": TREATMENT["log_level_replica"].default,
}

_UPLOAD = [name for name, treated in TREATMENT.items() if treated.group == "Hub"]  # engine.runs.uploading does that

_log = logging.getLogger(__name__)

_LIBRARYS_TIMEOUT = 1800  # seconds: the default of --ddp_timeout


@dataclass
class LMTrainingArguments(TrainingArguments):
    """``TrainingArguments`` whose ``load_best_model_at_end`` goes with any two intervals of saving and evaluating.

    The library refuses most pairs, for it can only choose among what was saved anyway; :class:`LMTrainer` saves a new
    best when it is found. A higher score is better only where that is so: of the figures of our evaluation it is the
    accuracy alone.
    """

    def __post_init__(self) -> None:
        best, self.load_best_model_at_end = self.load_best_model_at_end, False
        if best and self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        metric = self.metric_for_best_model
        if metric is not None and self.greater_is_better is None:
            self.greater_is_better = SCORES.get(metric.removeprefix("eval_"), True)  # the library: all but losses
        super().__post_init__()
        if best and self.eval_strategy == IntervalStrategy.NO:
            raise ValueError("load_best_model_at_end needs evaluations to choose by: give eval_strategy")
        self.load_best_model_at_end = best


def training_arguments(resolved: Resolved, precision: Decision, **worked_out: Any) -> TrainingArguments:
    """The arguments of a run. ``worked_out`` holds what only the data or a measurement could tell (``max_steps``)."""
    division = division_of(resolved)
    values = {
        **OURS,
        "dataloader_pin_memory": torch.cuda.is_available(),
        **resolved.training,
        **(division.arguments if division else {}),
        **worked_out,
        "do_train": resolved.do_train,
        "do_eval": resolved.do_eval,
        **precision.arguments,
        "disable_tqdm": True,  # whatever the user set
    }
    if muon.is_muon(values):  # the library knows no such name; LMTrainer gets the optimizer itself (engine.muon)
        values = {**muon.DEFAULTS, **values, "optim": "adamw_torch", "optim_args": None}
    for name in _UPLOAD:  # the library would make the repository now and upload each save in its own way
        values.pop(name, None)
    if torch.accelerator.current_accelerator(check_available=True) is None:
        values["use_cpu"] = True  # else the library takes bf16 for a GPU's that is missing
    if values.get("save_strategy") == "best" or resolved.run.early_stopping_patience is not None:
        values.setdefault("metric_for_best_model", "loss")
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        wait_for_all()  # the library makes the processes' group now
    if backend := _backend(values):
        make_group(backend, values.get("ddp_timeout", _LIBRARYS_TIMEOUT))
    try:
        with _as_it_was_started():
            arguments = LMTrainingArguments(**values)
    except (ValueError, ImportError) as error:  # conflicts that only the library knows
        raise UserError(f"the training options do not fit together: {error}") from error
    require_one_group(arguments)
    use_one_gpu(arguments)  # before a batch is worked out from it
    return arguments


def _backend(values: Mapping[str, Any]) -> str | None:
    """Of the processes' group; None where the library is to choose, or takes each process for the only one."""
    given: str | None = values.get("ddp_backend")
    if values.get("use_cpu") or os.environ.get("ACCELERATE_USE_CPU", "").lower() in YES:
        return given or "gloo"
    if not (torch.cuda.is_available() and os.environ.get("LOCAL_RANK")):
        return None
    sharding = sharding_of(values)
    if given in (None, "nccl") and sharding is not None and sharding.kind == "fsdp":
        return "cuda:nccl,cpu:gloo"  # what is offloaded is summed up where it lies
    return given or "nccl"


@contextmanager
def _as_it_was_started() -> Iterator[None]:
    """Accelerate takes a process on CPUs for the only one of its machine where the launcher says nothing of others
    (``srun``), tells so to all that ask later, and has it compute with every core (``PartialState``)."""
    threads, here = torch.get_num_threads(), os.environ.get("LOCAL_WORLD_SIZE")
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if here is None:
            os.environ.pop("LOCAL_WORLD_SIZE", None)


def require_one_group(arguments: TrainingArguments) -> None:
    """Refuse what Accelerate does without a word: it takes each process for the only one where none has a
    ``LOCAL_RANK``, and on a CPU that it was not told of."""
    started = max(arguments.world_size, processes())
    state: Any = arguments.distributed_state
    if started > 1 and state is not None and state.distributed_type == DistributedType.NO:
        raise UserError(
            f"Accelerate takes each of the {started} processes for the only one, so they would not train together: set "
            "LOCAL_RANK to the number that each has on its machine, from 0 on (torchrun does); on CPUs use_cpu=True, "
            "--use_cpu"
        )


def use_one_gpu(arguments: TrainingArguments) -> None:
    """One process uses one GPU; the library would copy the model to all of them (``nn.DataParallel``)."""
    if arguments.n_gpu > 1:
        _say_one_of(arguments.n_gpu)
        arguments._n_gpu = 1


@cache
def _say_one_of(gpus: int) -> None:
    _log.warning(
        "This machine has %d GPUs and one of them is used. To use all: torchrun --nproc_per_node %d …", gpus, gpus
    )


def examples_of_a_step(arguments: TrainingArguments) -> int:
    """Over all its micro-batches and all processes."""
    return arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size


def require_a_step(arguments: TrainingArguments, examples: int) -> None:
    """Refuse to train when leaving out the last, short batch of an epoch would leave none."""
    batch = arguments.train_batch_size * arguments.world_size
    if arguments.dataloader_drop_last and examples < batch:
        raise UserError(
            f"leaves nothing to train on: {examples:,} examples are fewer than one batch of {batch:,}; leave it out, "
            f"or use at most --per_device_train_batch_size {max(1, examples // arguments.world_size)}",
            flag="--dataloader_drop_last",
        )


def planned_steps(arguments: TrainingArguments, examples: int) -> int:
    """How many steps the Trainer will make over ``examples``; the last of an epoch may be a short one."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    return math.ceil(arguments.num_train_epochs * _steps_of_an_epoch(arguments, examples))


def steps_of_tokens(arguments: TrainingArguments, tokens: int, lengths: Any) -> int:
    """How many steps it takes to train on so many ``tokens`` of examples of these ``lengths``: whole epochs, and of the
    next one steps of examples of the mean length."""
    epochs, rest = divmod(tokens, int(lengths.sum()))
    a_step = examples_of_a_step(arguments) * float(lengths.mean())
    return epochs * _steps_of_an_epoch(arguments, len(lengths)) + math.ceil(rest / a_step)


def _steps_of_an_epoch(arguments: TrainingArguments, examples: int) -> int:
    at_once = arguments.per_device_train_batch_size * arguments.world_size
    batches = examples // at_once if arguments.dataloader_drop_last else math.ceil(examples / at_once)
    return max(1, math.ceil(batches / arguments.gradient_accumulation_steps))
