"""A task's training as options of ``lmtrain sft``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmtrain.config.commands.nlg import NlgTraining
from lmtrain.config.options import (
    DataOptions,
    LoraOptions,
    MaskingOptions,
    ModelOptions,
    PairOptions,
    Resolved,
    RunOptions,
)
from lmtrain.core.console import counted
from lmtrain.recipes.data_to_text.tasks import Task


def resolved_training(
    options: NlgTraining, task: Task, train: Path, valid: Path | None, folder: Path, seed: int
) -> Resolved:
    """What could have been typed as ``lmtrain sft …``; AdamW's ε is that of the original, 1e-6."""
    training: dict[str, Any] = {
        "output_dir": str(folder),
        "seed": seed,
        "num_train_epochs": options.num_train_epochs,
        "max_steps": options.max_steps,
        "per_device_train_batch_size": options.per_device_train_batch_size,
        "per_device_eval_batch_size": max(8, options.per_device_train_batch_size),
        "gradient_accumulation_steps": options.gradient_accumulation_steps,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": options.warmup_steps,
        "weight_decay": _or(options.weight_decay, task.weight_decay),
        "label_smoothing_factor": _or(options.label_smoothing_factor, task.label_smoothing),
        "adam_epsilon": 1e-6,
        "max_grad_norm": 0.0,
        "save_strategy": "steps",
        "save_steps": options.save_steps,
        "save_total_limit": 1,
        "use_cpu": options.use_cpu,
    }
    lora: dict[str, Any] = {}
    if options.use_peft:
        lora = {
            "use_peft": True,
            "lora_r": options.lora_r,
            "lora_alpha": options.lora_alpha,
            "lora_dropout": _or(options.lora_dropout, task.lora_dropout),
            "lora_query_value": True,
        }
    return Resolved(
        "sft",
        # The original's GPT-2 drops nothing but in the adapter.
        ModelOptions(model_name_or_path=options.model_name_or_path, tokenizer_name=options.tokenizer_name, dropout=0.0),
        DataOptions(
            train_file=[str(train)],
            validation_file=[str(valid)] if valid else [],
            validation_split_percentage=0.0,
            max_seq_length=options.max_seq_length,
            max_train_samples=options.max_train_samples,
        ),
        MaskingOptions(),
        RunOptions(overwrite_output_dir=options.overwrite_output_dir, precision=options.precision),
        training,
        frozenset(training) | {"train_file", "model_name_or_path", "max_seq_length"},
        lora=LoraOptions(**lora),
        pairs=PairOptions(objective=options.objective),
    )


def said_training(resolved: Resolved, decisions: Mapping[str, Any]) -> str:
    """The settings of a training in a line, for the table; ``decisions`` are those of its run folder."""
    training, lora = resolved.training, resolved.lora
    how = "all weights"
    if lora.use_peft:
        how = f"LoRA of rank {lora.lora_r}, α {lora.lora_alpha:g}, dropout {lora.lora_dropout:g}"
    steps = training["max_steps"]
    most = resolved.data.max_train_samples
    return ", ".join(
        [
            how,
            counted(steps, "step") if steps > 0 else f"epochs {training['num_train_epochs']:g}",
            f"{counted(decisions['examples_a_step'], 'example')} a step",
            *([] if most is None else [f"the first {counted(most, 'record')}"]),
            *([] if resolved.pairs.objective == "clm" else ["inputs learned too"]),
            f"learning rate {training['learning_rate']:g} after {counted(training['warmup_steps'], 'step')} of warm-up",
            f"weight decay {training['weight_decay']:g}",
            f"label smoothing {training['label_smoothing_factor']:g}",
            str(decisions["precision"]["choice"]),
        ]
    )


def _or(given: float | None, otherwise: float) -> float:
    return otherwise if given is None else given
