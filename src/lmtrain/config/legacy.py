# ruff: noqa: E501 -- a table
"""Old names: options of run_clm.py, run_mlm.py and earlier scripts, and fields that TrainingArguments had once.

Each is understood (renamed, converted), passed over with a line (dropped), or refused with what to type today. So are a
few values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lmtrain.config.values import YES, is_truth_word
from lmtrain.core.errors import UserError


@dataclass(frozen=True, slots=True)
class Old:
    """One old name.

    ``new`` is today's option, ``""`` for none. ``value`` turns the old words into the new ones (None: nothing to
    set, as for ``--no_cuda false``); it raises :class:`UserError` for a value that has no equivalent today.
    ``why`` is said to the user. ``refused`` names are not understood, but for a switch that is off. ``is_switch`` names
    may stand alone.
    ``environment`` is the variable that took the option's place.
    """

    new: str = ""
    why: str = ""
    value: Callable[[list[str]], list[str] | None] | None = None
    refused: bool = False
    is_switch: bool = False
    environment: str = ""


def _is_on(words: list[str]) -> bool:
    if len(words) > 1 or (words and not is_truth_word(words[0])):
        raise UserError(f"{' '.join(words)!r} is not true or false")
    return not words or words[0].lower() in YES


def _when_on(*new: str) -> Callable[[list[str]], list[str] | None]:
    """The new words when the old switch is on; nothing when it is off."""
    return lambda words: list(new) if _is_on(words) else None


def _opposite(words: list[str]) -> list[str]:
    return ["false" if _is_on(words) else "true"]


def _refuse_on(text: str) -> Callable[[list[str]], None]:
    def value(words: list[str]) -> None:
        if _is_on(words):
            raise UserError(text)

    return value


def _refuse_off(text: str) -> Callable[[list[str]], None]:
    def value(words: list[str]) -> None:
        if not _is_on(words):
            raise UserError(text)

    return value


def _only(allowed: frozenset[str], text: str) -> Callable[[list[str]], None]:
    def value(words: list[str]) -> None:
        if " ".join(words).lower() not in allowed:
            raise UserError(text)

    return value


def _ratio(words: list[str]) -> list[str] | None:
    try:
        share = float(words[0]) if len(words) == 1 else -1.0
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(
            f"{' '.join(words)!r} is not a share of the steps, from 0 to below 1; it is now written --warmup_steps 0.1"
        )
    return [repr(share)] if share else None


def _fsdp_setting(key: str) -> str:
    return f"this setting is now part of a JSON object: --fsdp true --fsdp_config '{{\"{key}\": ...}}'"


def _token(words: list[str]) -> list[str] | None:
    """A token, or the earlier switch: on means the stored login, which is used anyway."""
    return None if not words or (len(words) == 1 and is_truth_word(words[0])) else words


_AMP = _only(frozenset({"auto", "amp", "cuda_amp", "cpu_amp"}), "Apex is gone; mixed precision is torch's own: --fp16")
_FP32 = _only(frozenset({"float32"}), "weights are kept in fp32; for fast products use --precision bf16")
_LENGTH = _refuse_on(
    "the order of the examples is a function of the seed and the epoch, so that a run resumes exactly; "
    "leave this out (masked training pads only to the longest of a batch)"
)
_NO_SEARCH = "the commands run no hyperparameter search"
_SAME = "this is always so"
_PACKED = "rows are filled as full as they can be, and no example is cut for it; --no_packing pads instead"

LEGACY: dict[str, Old] = {
    # Renamed fields of TrainingArguments
    "evaluation_strategy": Old("eval_strategy"),
    "per_gpu_train_batch_size": Old("per_device_train_batch_size"),
    "per_gpu_eval_batch_size": Old("per_device_eval_batch_size"),
    "no_cuda": Old("use_cpu", value=lambda words: ["true"] if _is_on(words) else None, is_switch=True),
    "warmup_ratio": Old("warmup_steps", "a number of steps below 1 is a share of all steps", _ratio),
    "evaluate_during_training": Old("eval_strategy", value=_when_on("steps"), is_switch=True),
    "adafactor": Old("optim", value=_when_on("adafactor"), is_switch=True),
    "torchdynamo": Old("torch_compile_backend"),
    "xpu_backend": Old("ddp_backend"),
    "push_to_hub_model_id": Old("hub_model_id"),
    "push_to_hub_token": Old("hub_token"),
    "num_warmup_steps": Old("warmup_steps"),
    # TensorBoard's writer reads its folder from the environment since transformers 5
    "logging_dir": Old(why="TensorBoard now takes its folder from the environment variable", environment="TENSORBOARD_LOGGING_DIR"),
    # Options of the scripts and of their predecessors
    "train_data_file": Old("train_file"),
    "eval_data_file": Old("validation_file"),
    "test_data_file": Old("test_file"),
    "whole_word_mask": Old("mask_whole_words", is_switch=True),
    "wwm": Old("mask_whole_words", is_switch=True),
    "use_auth_token": Old("token", value=_token, is_switch=True),
    "use_slow_tokenizer": Old("use_fast_tokenizer", value=_opposite, is_switch=True),
    "with_tracking": Old(refused=True, why="name the tracker: --report_to tensorboard", is_switch=True),
    "checkpointing_steps": Old(refused=True, why="write --save_strategy steps --save_steps N, or --save_strategy epoch"),
    "mlm": Old(refused=True, why="masked training is a command of its own: lmtrain mlm", is_switch=True),
    "plm": Old(refused=True, why="permutation training is not offered; there are lmtrain clm and lmtrain mlm", is_switch=True),
    "plm_probability": Old(refused=True, why="permutation training is not offered"),
    "max_span_length": Old(refused=True, why="permutation training is not offered"),
    "chinese_ref_file": Old(refused=True, why="words given in a file are not supported; see --mask_whole_words"),
    "train_ref_file": Old(refused=True, why="words given in a file are not supported; see --mask_whole_words"),
    "validation_ref_file": Old(refused=True, why="words given in a file are not supported; see --mask_whole_words"),
    "torch_dtype": Old(why="weights are always kept in fp32", value=_FP32),
    "dtype": Old(why="weights are always kept in fp32", value=_FP32),
    "low_cpu_mem_usage": Old(why=_SAME, value=lambda words: None, is_switch=True),
    "should_continue": Old(why="the same command continues an unfinished run by itself", is_switch=True,
                           value=lambda words: None),
    "eval_all_checkpoints": Old(refused=True, why="call lmtrain evaluate for each checkpoint", is_switch=True),
    # Gone from TrainingArguments
    "fp16_opt_level": Old(why="mixed precision is torch's own, which is Apex's O1",
                          value=_only(frozenset({"o1"}), "Apex is gone; mixed precision is torch's own: --fp16")),
    "fp16_backend": Old(why="mixed precision is torch's own", value=_AMP),
    "half_precision_backend": Old(why="mixed precision is torch's own", value=_AMP),
    "group_by_length": Old(why="examples come in an order given by the seed", value=_LENGTH, is_switch=True),
    "save_safetensors": Old(why=_SAME, is_switch=True,
                            value=_refuse_off("weights are always saved as safetensors, never as pickles")),
    "include_tokens_per_second": Old(why=_SAME, value=lambda words: None, is_switch=True),
    "include_inputs_for_metrics": Old(why="the commands have no compute_metrics", is_switch=True,
                                      value=lambda words: None),
    "use_legacy_prediction_loop": Old(why="evaluation keeps only running sums", value=lambda words: None, is_switch=True),
    "eval_use_legacy_prediction_loop": Old(why="evaluation keeps only running sums", value=lambda words: None, is_switch=True),
    "use_mps_device": Old(why="Apple's GPU is used wherever it is there", value=lambda words: None, is_switch=True),
    "ray_scope": Old(why=_NO_SEARCH, value=lambda words: None),
    "jit_mode_eval": Old(why="evaluation runs the model as it is", is_switch=True,
                         value=_refuse_on("TorchScript evaluation is gone; use --torch_compile")),
    "use_ipex": Old(why="torch itself is fast on these CPUs now", is_switch=True,
                    value=_refuse_on("the Intel extension is no longer used; torch has taken it in")),
    "sharded_ddp": Old(refused=True, why="FairScale is gone; use --fsdp"),
    "fsdp_min_num_params": Old(refused=True, why=_fsdp_setting("min_num_params")),
    "fsdp_transformer_layer_cls_to_wrap": Old(refused=True, why=_fsdp_setting("transformer_layer_cls_to_wrap")),
    "fsdp_backward_prefetch": Old(refused=True, why=_fsdp_setting("backward_prefetch")),
    "tpu_num_cores": Old(refused=True, why="TPUs are not supported"),
    "tpu_metrics_debug": Old(refused=True, why="TPUs are not supported", is_switch=True),
    "past_index": Old(why="no hidden states are carried from batch to batch",
                      value=_only(frozenset({"-1"}), "models that carry hidden states from batch to batch are not supported")),
    "mp_parameters": Old(refused=True, why="SageMaker's model parallelism is not supported; use --fsdp or --deepspeed"),
    "tp_size": Old(refused=True, why="tensor parallelism is not offered; use --fsdp or --deepspeed"),
    "dispatch_batches": Old(why="each process reads its own batches", is_switch=True,
                            value=_refuse_on("each process reads its own batches; leave this out")),
    "split_batches": Old(why="batch sizes are per device", is_switch=True,
                         value=_refuse_on("batch sizes are per device; divide --per_device_train_batch_size instead")),
    "push_to_hub_organization": Old(refused=True, why="write the organization into the name: --hub_model_id ORG/NAME"),
    "model_parallel": Old(refused=True, why="splitting layers over GPUs is not offered; use --fsdp or --deepspeed",
                          is_switch=True),
    "gpus": Old(refused=True, why="start one process a GPU: torchrun --nproc_per_node N -m lmtrain ..."),
    # Options of TRL's sft
    "dataset_text_field": Old("text_column"),
    "completion_only_loss": Old("objective", value=lambda words: None if _is_on(words) else ["jlm"], is_switch=True),
    "assistant_only_loss": Old("chat_turns", value=_when_on("all"), is_switch=True),
    "packing_strategy": Old(why=_PACKED, value=lambda words: None),
    "padding_free": Old(why=_PACKED, value=lambda words: None, is_switch=True),
    "eval_packing": Old(why="evaluations keep only running sums", value=lambda words: None, is_switch=True),
    "chat_template_path": Old(refused=True, why="put the template into the tokenizer's folder, as chat_template.jinja"),
    "eos_token": Old(refused=True, why="the end of a text is the tokenizer's own; set it there, and name it with --tokenizer_name"),
}  # fmt: skip

# Values of TrainingArguments' fields that are written otherwise now. adamw_hf, which only added ε before it corrected the
# bias, was the default up to transformers 4.29, and so stands in every dump of arguments from then.
VALUES = {"optim": {"adamw_hf": "adamw_torch"}}

# One thing under two names, older first: which of them TrainingArguments has depends on its version.
TWINS = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
