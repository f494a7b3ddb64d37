# ruff: noqa: E501 -- a table
"""How the fields of ``TrainingArguments`` are worded, bounded and shown where the library's own words do not fit.

The library describes its fields for its own scripts; those of everyday use are described here as they act here.
"""

from __future__ import annotations

from lmtrain.config import muon
from lmtrain.config.about import SEEDS

SECRET = frozenset({"hub_token"})

# What a number counts, where the name does not say it.
UNITS: dict[str, str] = {
    "per_device_train_batch_size": "examples",
    "per_device_eval_batch_size": "examples",
    "gradient_accumulation_steps": "batches",
    "num_train_epochs": "passes over the data",
    "max_steps": "optimizer steps",
    "warmup_steps": "optimizer steps, or below 1 a share of all",
    "logging_steps": "optimizer steps, or below 1 a share of all",
    "eval_steps": "optimizer steps, or below 1 a share of all",
    "save_steps": "optimizer steps, or below 1 a share of all",
    "save_total_limit": "checkpoints",
    "torch_empty_cache_steps": "batches",
    "ddp_bucket_cap_mb": "MB",
    "ddp_timeout": "seconds",
    "dataloader_num_workers": "processes",
    "dataloader_prefetch_factor": "batches",
}

BOUNDS: dict[str, dict[str, float]] = {
    "per_device_train_batch_size": {"at_least": 1},
    "per_device_eval_batch_size": {"at_least": 1},
    "gradient_accumulation_steps": {"at_least": 1},
    "num_train_epochs": {"above": 0},
    "max_steps": {"at_least": -1},
    "learning_rate": {"at_least": 0},
    "warmup_steps": {"at_least": 0},
    "weight_decay": {"at_least": 0},
    "adam_beta1": {"at_least": 0, "below": 1},
    "adam_beta2": {"at_least": 0, "below": 1},
    "adam_epsilon": {"at_least": 0},
    "max_grad_norm": {"at_least": 0},
    "label_smoothing_factor": {"at_least": 0, "below": 1},
    "logging_steps": {"above": 0},
    "eval_steps": {"above": 0},
    "save_steps": {"above": 0},
    "eval_delay": {"at_least": 0},
    "save_total_limit": {"at_least": 1},
    "torch_empty_cache_steps": {"at_least": 1},
    "seed": SEEDS,
    "data_seed": SEEDS,
    "dataloader_num_workers": {"at_least": 0},
    "dataloader_prefetch_factor": {"at_least": 1},
    "ddp_timeout": {"above": 0},
    "ddp_bucket_cap_mb": {"above": 0},
}

# What scripts that gave 0 or -1 meant.
TOO_SMALL: dict[str, str] = {
    "logging_steps": "--logging_strategy no logs nothing",
    "eval_steps": "--eval_strategy no evaluates only at the end",
    "save_steps": "--save_strategy no saves no checkpoint",
    "num_train_epochs": "lmtrain evaluate scores a model as it is",
}

_LEVELS = ("detail", "debug", "info", "warning", "error", "critical", "passive")
# Values that the source keeps in a computed object.
CHOICES: dict[str, tuple[str, ...]] = {
    "log_level": _LEVELS,
    "log_level_replica": _LEVELS,
    "torch_compile_mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
}

# Values of ours beside the library's.
MORE_CHOICES: dict[str, tuple[str, ...]] = {"optim": (muon.NAME,)}

METAVARS: dict[str, str] = {
    "output_dir": "FOLDER",
    "resume_from_checkpoint": "FOLDER|never",
    "report_to": "TRACKER",
    "run_name": "TEXT",
    "hub_token": "TOKEN",
    "hub_model_id": "ORG/NAME",
    "fsdp": "true",
    "optim": "OPTIMIZER",
    "lr_scheduler_type": "SCHEDULE",
}

_ALL = "10 is every ten steps, 0.1 every tenth of the run."

HELP: dict[str, str] = {
    "output_dir": "Folder of the run: checkpoints, log, results, and in the end the model and its tokenizer.",
    "do_train": "Train. With neither --do_train nor --do_eval both happen, as far as there is data.",
    "do_eval": "Evaluate at the end (and during training with --eval_strategy).",
    "resume_from_checkpoint": "Begin at this checkpoint; never: at the first step. Later checkpoints are set aside. Without it the same command goes on from the newest.",
    "per_device_train_batch_size": "Examples that each device takes in one forward pass.",
    "per_device_eval_batch_size": "Examples that each device takes in one forward pass of evaluation; no score depends on it.",
    "gradient_accumulation_steps": "Forward passes whose gradients are summed for one optimizer step: 8 x 1, 4 x 2 and 1 x 8 are the same step.",
    "num_train_epochs": "Passes over the training text; the last may be a part.",
    "max_steps": "Stop after so many steps, instead of --num_train_epochs; -1 means not to.",
    "seed": "Seed of everything drawn at random: order, masks, dropout, a new model's weights.",
    "data_seed": "Seed of the order and the masks, where it is to differ from --seed.",
    "full_determinism": "Let torch use only algorithms that repeat bit by bit; slower, for finding faults.",
    "learning_rate": f"Highest learning rate of the schedule. With --optim muon it is Muon's, {muon.DEFAULTS['learning_rate']:g} unless given, and AdamW's follows.",
    "lr_scheduler_type": "How the learning rate goes down.",
    "warmup_steps": "The learning rate rises from 0 over so many steps.",
    "optim": "The optimizer: muon (for training from scratch, see docs/optimizers.md), or one of transformers' OptimizerNames: adamw_torch, sgd, adafactor, lion_8bit, ...",
    "weight_decay": "Decay of the weights in each step; biases and norms are left alone.",
    "max_grad_norm": "Gradients longer than this are shortened to it; 0 leaves them.",
    "label_smoothing_factor": "Share of the probability that the training target spreads over all tokens; scores are without it.",
    "bf16": "Products in bf16; the same as --precision bf16.",
    "fp16": "Products in fp16, with scaled gradients; the same as --precision fp16.",
    "use_cpu": "Leave the accelerator alone.",
    "activation_checkpointing": "Recompute activations in the backward pass instead of keeping them: less memory, about a fifth slower.",
    "gradient_checkpointing": "Recompute activations in the backward pass instead of keeping them: less memory, about a fifth slower.",
    "torch_compile": "Compile the model first: slow to start, then faster steps.",
    "eval_strategy": "When to evaluate during training.",
    "eval_steps": f"With --eval_strategy steps, how often; without it as often as --logging_steps. {_ALL}",
    "eval_delay": "No evaluation before this step (or epoch, with --eval_strategy epoch).",
    "eval_on_start": "Evaluate before the first step too.",
    "save_strategy": "When to save a checkpoint; best: whenever the evaluation is the best so far.",
    "save_steps": f"With --save_strategy steps, how often. {_ALL}",
    "save_total_limit": "Keep only so many checkpoints, the newest and the best.",
    "save_only_model": "Checkpoints without optimizer state: smaller, but a stopped run cannot go on from them.",
    "load_best_model_at_end": "Leave the best checkpoint as the result, not the last.",
    "metric_for_best_model": "The score that tells which is best; without it the evaluation loss.",
    "greater_is_better": "Whether a greater score is better; worked out from its name without this.",
    "logging_strategy": "When to log the training loss.",
    "logging_steps": f"How often to log. {_ALL}",
    "logging_first_step": "Log the first step too.",
    "logging_nan_inf_filter": "Put an average where the loss is not a number.",
    "report_to": "Trackers to send to: tensorboard, wandb, ... None is switched on unless named.",
    "dataloader_num_workers": "Processes that make batches. The result does not depend on it.",
    "dataloader_drop_last": "Leave out the last batch of an epoch when it is not full. Evaluation never does.",
    "ddp_timeout": "How long a process waits for the others.",
    "fsdp": "Shard the model over GPUs (PyTorch's Fully Sharded Data Parallel).",
    "fsdp_config": "Settings of FSDP: a JSON object, or a file of it.",
    "deepspeed": "Settings of DeepSpeed, which is then used: a JSON object, or a file of it.",
    "push_to_hub": "Upload the model to the hub. Nothing is sent anywhere without this.",
}
