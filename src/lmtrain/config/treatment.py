"""What becomes of each field of ``transformers.TrainingArguments``: honored, subsumed or refused, and why.

*honored*: handed on and obeyed. *subsumed*: accepted, but something of ours does its work, so the value has no
effect, and a line says so. *refused*: any value but the library's default is an error that gives the reason.
The table covers the oldest and the newest supported transformers; a test compares it with the installed one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["honored", "subsumed", "refused"]

GROUPS = (
    "Batch and steps",
    "Optimizer and schedule",
    "Hardware and precision",
    "Evaluation and saving",
    "Logging and trackers",
    "Data loading",
    "Many machines",
    "Hub",
)


@dataclass(frozen=True, slots=True)
class Treatment:
    """``reason`` is a full sentence for the subsumed and the refused, a remark or empty for the honored;
    ``default`` is ours where it differs from the library's."""

    kind: Kind
    group: str
    reason: str = ""
    default: Any = None


def _honored(group: str, names: str) -> dict[str, Treatment]:
    return {name: Treatment("honored", group) for name in names.split()}


_BATCH, _OPTIM, _HARDWARE, _EVAL, _LOG, _DATA, _MACHINES, _HUB = GROUPS

TREATMENT: dict[str, Treatment] = {
    **_honored(
        _BATCH,
        "output_dir do_train do_eval per_device_train_batch_size gradient_accumulation_steps num_train_epochs "
        "max_steps seed data_seed resume_from_checkpoint full_determinism",
    ),
    "do_predict": Treatment(
        "refused", _BATCH, "Language models are scored, not asked for labels: give the text as --test_file."
    ),
    "auto_find_batch_size": Treatment(
        "refused", _BATCH,
        "The size found would be searched for again on resuming, and the number of steps would change with it; "
        "--auto_batch finds a micro-batch that fits and keeps the step as it is.",
    ),
    "average_tokens_across_devices": Treatment(
        "subsumed", _BATCH, "Losses are summed over all processes and divided once by all predicted tokens."
    ),
    # Optimizer and schedule
    **_honored(
        _OPTIM,
        "learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args optim_target_modules "
        "weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm label_smoothing_factor neftune_noise_alpha",
    ),
    # Hardware and precision
    **_honored(
        _HARDWARE,
        "bf16 fp16 tf32 use_cpu torch_compile torch_compile_backend torch_compile_mode activation_checkpointing "
        "activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs "
        "torch_empty_cache_steps",
    ),
    "bf16_full_eval": Treatment(
        "refused", _HARDWARE,
        "It rounds the weights themselves before evaluation, so the score is another model's; evaluation uses the "
        "precision of the run (--precision).",
    ),
    "fp16_full_eval": Treatment(
        "refused", _HARDWARE,
        "It rounds the weights themselves before evaluation, so the score is another model's; evaluation uses the "
        "precision of the run (--precision).",
    ),
    "use_liger_kernel": Treatment(
        "refused", _HARDWARE, "Its fused loss gives no logits and divides by its own count; the loss here is ours."
    ),
    "liger_kernel_config": Treatment("refused", _HARDWARE, "It configures use_liger_kernel, which is refused."),
    "use_cache": Treatment(
        "subsumed", _HARDWARE, "Training never keeps a key-value cache, and generation always does."
    ),
    # Evaluation and saving
    **_honored(
        _EVAL,
        "eval_strategy eval_steps eval_delay eval_on_start per_device_eval_batch_size save_strategy save_steps "
        "save_on_each_node metric_for_best_model greater_is_better",
    ),
    "save_total_limit": Treatment("honored", _EVAL, "The best checkpoint and the last stay whatever the limit."),
    "load_best_model_at_end": Treatment(
        "honored", _EVAL, "A new best is saved when it is found, so any two intervals of saving and evaluating fit.",
    ),
    "save_only_model": Treatment(
        "honored", _EVAL, "Checkpoints without optimizer state: a stopped run cannot be continued from them."
    ),
    "enable_jit_checkpoint": Treatment(
        "refused", _EVAL, "It is a second handler of SIGTERM, and stopping and resuming are the run folder's work."
    ),
    "prediction_loss_only": Treatment("subsumed", _EVAL, "Evaluation keeps running sums and never the logits."),
    "eval_do_concat_batches": Treatment("subsumed", _EVAL, "Evaluation keeps no predictions to join."),
    "eval_use_gather_object": Treatment("subsumed", _EVAL, "Evaluation gathers three sums, once, at its end."),
    "eval_accumulation_steps": Treatment("subsumed", _EVAL, "Evaluation keeps no predictions to move."),
    "batch_eval_metrics": Treatment("subsumed", _EVAL, "Every metric is a running sum already."),
    "include_for_metrics": Treatment("subsumed", _EVAL, "The commands have no compute_metrics to feed."),
    "restore_callback_states_from_checkpoint": Treatment(
        "subsumed", _EVAL, "Their counters always go on; what they were made with is what is asked for now."
    ),
    # Logging and trackers
    **_honored(
        _LOG,
        "logging_strategy logging_first_step log_level run_name project "
        "trackio_space_id trackio_bucket_id trackio_static_space_id debug skip_memory_metrics",
    ),
    "logging_steps": Treatment("honored", _LOG, "More often than the library's 500.", default=10),
    "log_on_each_node": Treatment(
        "honored", _LOG, "One machine speaks for all: others' warnings stand in logs/rank-N.log alone.", default=False
    ),
    "log_level_replica": Treatment(
        "honored", _LOG, "The other processes are as quiet as the first.", default="passive"
    ),
    "report_to": Treatment("honored", _LOG, "No tracker is switched on unless named.", default="none"),
    "logging_nan_inf_filter": Treatment(
        "subsumed", _LOG, "A loss that is not a number is always shown: an average in its place hides a broken run.",
        default=False,
    ),
    "disable_tqdm": Treatment(
        "subsumed", _LOG, "Progress is lmtrain's own: a bar in a terminal, plain lines in a file."
    ),
    "include_num_input_tokens_seen": Treatment("subsumed", _LOG, "Tokens without padding are always counted."),
    # Data loading
    **_honored(
        _DATA,
        "dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
        "dataloader_prefetch_factor dataloader_multiprocessing_context",
    ),
    "dataloader_in_order": Treatment(
        "refused", _DATA, "Whichever worker is ready first would decide the order; here the seed decides it."
    ),
    "remove_unused_columns": Treatment("subsumed", _DATA, "Batches hold nothing that the model does not take."),
    "label_names": Treatment("subsumed", _DATA, "Language models have one kind of label, `labels`."),
    "train_sampling_strategy": Treatment(
        "refused", _DATA, "The order of the examples is a function of the seed and the epoch, so that a run resumes."
    ),
    "length_column_name": Treatment("refused", _DATA, "It belongs to sampling by length, which is refused."),
    "ignore_data_skip": Treatment(
        "refused", _DATA, "It would train on the same examples again; resuming skips nothing and reads nothing twice."
    ),
    # Many machines
    **_honored(
        _MACHINES,
        "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend "
        "ddp_timeout fsdp fsdp_config deepspeed",
    ),
    "accelerator_config": Treatment(
        "refused", _MACHINES, "Batches are cut and dealt to the processes by lmtrain, and Accelerate's settings would "
        "cut them again.",
    ),
    "parallelism_config": Treatment(
        "refused", _MACHINES, "It is a Python object, which no command line can name; use --fsdp or --deepspeed."
    ),
    "local_rank": Treatment("subsumed", _MACHINES, "The launcher says it in the environment (LOCAL_RANK)."),
    # Hub
    **_honored(_HUB, "push_to_hub hub_model_id hub_token hub_private_repo hub_revision"),
    "hub_strategy": Treatment(
        "subsumed", _HUB, "The finished model is uploaded, once, when it was compared; checkpoints never are."
    ),
    "hub_always_push": Treatment("subsumed", _HUB, "There is one upload, and nothing it could wait for."),
}  # fmt: skip
