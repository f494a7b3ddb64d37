"""Options that contradict each other, or leave something out that a command needs.

Only what the options alone tell is checked here, in milliseconds; what needs the data, the tokenizer or the
model is checked where those are opened.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lmtrain.config.adapter import check_lora
from lmtrain.config.export import ExportOptions, check_export
from lmtrain.config.filter import FilterOptions, check_filter
from lmtrain.config.generate import GenerateOptions, check_generate
from lmtrain.config.key_tokens import check_key_tokens
from lmtrain.config.mix import Mix
from lmtrain.config.model_size import parameters
from lmtrain.config.muon import MuonArgs, is_muon
from lmtrain.config.options import (
    DataOptions,
    EvaluateOptions,
    ModelOptions,
    PrepareOptions,
    Resolved,
    TextOptions,
    TokenizerOptions,
)
from lmtrain.config.push import PushOptions, check_push
from lmtrain.config.report import ReportOptions, check_report
from lmtrain.config.samples import check_samples
from lmtrain.config.values import user_path
from lmtrain.core.errors import Problems, UserError

_TENSORFLOW = (".ckpt", ".h5", ".pb", ".ckpt.index", ".ckpt.meta")
# What an evaluation ends in, and whether more of it is better (see engine/evaluation.py).
SCORES = {
    "loss": False, "perplexity": False, "bits_per_byte": False, "accuracy": True,
    "loss_with_keys": False, "loss_without_keys": False,
}  # fmt: skip
_DATA_FILES = {
    "train_file": "--train_file",
    "validation_file": "--validation_file",
    "test_file": "--test_file",
}


def check(command: str, options: Any, problems: Problems) -> None:
    """Add to ``problems`` whatever is wrong with the options of ``command``."""
    if isinstance(options, Resolved):
        _training(options, problems)
    elif isinstance(options, TokenizerOptions):
        _data(options, problems)
        _needs_text(options, problems)
        if options.like and options.type:
            problems.add("has its kind already; give one of --like and --type", flag="--like")
        if not options.output_dir:
            problems.add("say where the tokenizer goes, such as --output_dir my-tokenizer", flag="--output_dir")
    elif isinstance(options, FilterOptions):
        _data(options, problems)
        _needs_text(options, problems)
        check_filter(options, problems)
    elif isinstance(options, PrepareOptions):
        _prepare(options, problems)
    elif isinstance(options, EvaluateOptions):
        _model_given(options, problems)
        _data(options, problems)
        if not (options.validation_file or options.test_file or options.dataset_name):
            problems.add("nothing to evaluate on; name a text: --validation_file TEXT", flag="--validation_file")
    elif isinstance(options, ExportOptions):
        check_export(options, problems)
    elif isinstance(options, PushOptions):
        check_push(options, problems)
    elif isinstance(options, ReportOptions):
        check_report(options, problems)
    elif isinstance(options, GenerateOptions):
        _model_given(options, problems)
        check_generate(options, problems)


def _training(options: Resolved, problems: Problems) -> None:
    _model(options, problems)
    _data(options.data, problems)
    _splits(options, problems)
    _precision(options, problems)
    _batch(options, problems)
    if is_muon(options.training):
        _muon(options.training, problems)
    _schedule(options, problems)
    check_lora(options.lora, options.given, options.model, problems)
    check_key_tokens(options.keys, options.given, problems)
    check_samples(options.samples, options.training, options.do_train, options.do_eval, problems)
    data = options.data
    if data.compat and data.compat != f"run_{options.command}":
        problems.add(f"{data.compat} is the other script; here it is --compat run_{options.command}", flag="--compat")
    if data.compat and options.command == "clm" and "append_eos" in options.given and data.append_eos:
        problems.add(
            "run_clm puts no end-of-text token between documents; give only one of --compat and --append_eos",
            flag="--compat",
        )
    _chunking(data, problems)
    if data.chunking == "documents" and "append_eos" in options.given and data.append_eos:
        problems.add(
            "windows of single documents have no end-of-text tokens; give only one of --chunking documents and "
            "--append_eos",
            flag="--chunking",
        )
    if data.pad_to_max_length and not data.line_by_line:
        problems.add("only lines can be padded; blocks are full. Add --line_by_line", flag="--pad_to_max_length")
    if options.do_train and not options.output_dir:
        problems.add("say where the run goes, such as --output_dir runs/mine", flag="--output_dir")
    elif options.do_train and options.output_dir:
        _not_its_own_start(options.model, user_path(options.output_dir), problems)


def _chunking(data: DataOptions, problems: Problems) -> None:
    if data.chunking != "documents":
        return
    if data.compat:
        problems.add(f"{data.compat} joins documents; give only one of --chunking and --compat", flag="--chunking")
    if data.isolate_documents:
        problems.add("each window is of one document already; leave it out", flag="--isolate_documents")
    if not data.drop_remainder:
        problems.add("--chunking documents leaves out what fills no window; give one of them", flag="--drop_remainder")


def _not_its_own_start(model: ModelOptions, output: Path, problems: Problems) -> None:
    """A run that writes over the model it began with cannot be begun again when it is interrupted."""
    for flag, name in (("--model_name_or_path", model.model_name_or_path), ("--tokenizer_name", model.tokenizer_name)):
        if name and output.is_dir() and user_path(name).resolve() == output.resolve():
            problems.add(f"is the folder of {flag} too, which would be written over; name another", flag="--output_dir")


def _model(options: Resolved, problems: Problems) -> None:
    model = options.model
    if not (model.model_name_or_path or model.model_type or model.config_name):
        example = "gpt2" if options.command == "clm" else "bert"
        problems.add(
            f"no model: name a checkpoint, or build one with --model_type {example} --tokenizer_name NAME",
            flag="--model_name_or_path",
        )
    elif not (model.model_name_or_path or model.tokenizer_name):
        problems.add(
            "a new model needs a tokenizer: a folder or a hub name; lmtrain tokenizer makes one",
            flag="--tokenizer_name",
        )
    if model.config_overrides and model.model_name_or_path:
        problems.add(
            f"changes the shape of a new model, and {model.model_name_or_path} has its shape already; "
            "leave out one of the two",
            flag="--config_overrides",
        )
    if model.model_size:
        with problems.collect():
            parameters(model.model_size)
        if model.model_name_or_path or model.config_name or not model.model_type:
            problems.add(
                "gives a new model its shape, so it goes with --model_type (gpt2, llama, mistral, bert, roberta, "
                "modernbert), and not with a model that has one",
                flag="--model_size",
            )
    _no_tensorflow(model, problems)


def _model_given(model: ModelOptions, problems: Problems) -> None:
    if not model.model_name_or_path:
        problems.add("name a model: a run's folder, a checkpoint or a hub name", flag="--model_name_or_path")
    _no_tensorflow(model, problems)


def _no_tensorflow(model: ModelOptions, problems: Problems) -> None:
    name = model.model_name_or_path or ""
    if name.lower().endswith(_TENSORFLOW):
        problems.add(
            f"{name} is a TensorFlow checkpoint, which today's libraries no longer read; convert it with "
            "transformers 4 (from_pretrained(..., from_tf=True), then save_pretrained) and give that folder",
            flag="--model_name_or_path",
        )


def _data(data: TextOptions, problems: Problems) -> None:
    """What holds for every command that reads text."""
    named = [name for name in _DATA_FILES if getattr(data, name, None)]
    if data.dataset_name and named:
        flags = " and ".join(_DATA_FILES[name] for name in named)
        problems.add(f"comes with its own splits; give either it or {flags}", flag="--dataset_name")
    if data.dataset_config_name and not data.dataset_name:
        problems.add("chooses a configuration of --dataset_name, which is missing", flag="--dataset_config_name")
    if data.dataset_name and data.dataset_name.lower().endswith((".py", ".txt", ".csv", ".json", ".jsonl")):
        problems.add(f"{data.dataset_name} is a file; give files with --train_file", flag="--dataset_name")
    paths = {name: getattr(data, name) for name in named}
    if isinstance(data, DataOptions) and data.mix:
        paths["train_file"] = []
        with problems.collect():
            paths["train_file"] = _mixed_files(data)
    for name, found in paths.items():
        for path in found:
            _exists(path, _DATA_FILES[name], problems)
    if isinstance(data, DataOptions):
        stdin = [name for name in named if "-" in getattr(data, name)]
        if len(stdin) > 1:
            problems.add(
                f"standard input is read once, and {_DATA_FILES[stdin[0]]} reads it",
                flag=_DATA_FILES[stdin[1]],
            )


def _mixed_files(data: DataOptions) -> list[str]:
    """The training files of a mix, without their names; none while something about it is wrong."""
    if data.dataset_name:
        raise UserError("mixes files; save the data sets as files first, and name these", flag="--mix")
    mix = Mix.of(data.mix)
    return [path for paths in mix.paths(data.train_file).values() for path in paths] if mix else []


def _exists(path: str, flag: str, problems: Problems) -> None:
    """A file that is not there, with the neighbour of the most similar name."""
    if path == "-" or any(sign in path for sign in "*?["):
        return
    if not path.strip():
        problems.add("an empty name is no file", flag=flag)
        return
    file = user_path(path)
    try:
        if file.exists():
            return
        neighbours = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
    except (OSError, ValueError):
        return  # unreadable folders and impossible names are the reader's to report
    close = difflib.get_close_matches(file.name, neighbours, n=1)
    hint = f"; did you mean {file.parent / close[0]}?" if close else ""
    problems.add(f"no such file or folder: {path}{hint}", flag=flag)


def _needs_text(data: TextOptions, problems: Problems) -> None:
    if not (data.train_file or data.dataset_name):
        problems.add("no text; name a file or a folder: --train_file TEXT", flag="--train_file")


def _splits(options: Resolved, problems: Problems) -> None:
    """Is there data for what is asked?"""
    data, asked = options.data, options.training
    if not (options.can_train or options.can_evaluate):
        problems.add("no text; name a file or a folder: --train_file TEXT", flag="--train_file")
        return
    if asked.get("do_train") and not options.can_train:
        problems.add("nothing to train on; name a text: --train_file TEXT", flag="--do_train")
    evaluates = "--do_eval" if asked.get("do_eval") else "--eval_strategy"
    if options.do_eval and not options.can_evaluate:
        problems.add(
            "nothing to evaluate on: no --validation_file, and --validation_split_percentage is 0",
            flag=evaluates,
        )
    if data.validation_split_percentage == 100 and options.do_train and not data.validation_file:
        problems.add("100 leaves nothing to train on", flag="--validation_split_percentage")


def _batch(options: Resolved, problems: Problems) -> None:
    given, run = options.training, options.run
    if run.batch_tokens is not None:
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
            if name in given:
                problems.add(f"sizes the step, and so does --{name}; give one of them", flag="--batch_tokens")
    for name in ("fsdp", "deepspeed"):
        if given.get(name) and (run.auto_batch or run.batch_tokens is not None):
            flag = "--auto_batch" if run.auto_batch else "--batch_tokens"
            problems.add(
                f"tries the whole model in one process, and --{name} divides it; give --per_device_train_batch_size "
                "and --gradient_accumulation_steps",
                flag=flag,
            )


def _precision(options: Resolved, problems: Problems) -> None:
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


def _muon(given: dict[str, Any], problems: Problems) -> None:
    for name in ("fsdp", "deepspeed"):
        if given.get(name):
            problems.add(
                "cuts the matrices into pieces, and --optim muon needs each whole; leave out one of the two",
                flag=f"--{name}",
            )
    if given.get("optim_target_modules"):
        problems.add("belongs to optimizers such as galore_adamw, not to --optim muon", flag="--optim_target_modules")
    if not given.get("optim_args") or all("=" in pair for pair in given["optim_args"].split(",")):
        with problems.collect():  # what is no pair at all is reported with the schedule
            MuonArgs.parse(given.get("optim_args"))


def _schedule(options: Resolved, problems: Problems) -> None:
    """Conflicts that ``TrainingArguments`` would find too, but seconds later and one at a time."""
    given = options.training
    strategy = given.get("eval_strategy", "no")
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
    if given.get("fsdp") and given.get("deepspeed"):
        problems.add("does the same work as --deepspeed; give one of them", flag="--fsdp")
    if given.get("fsdp_config") and not given.get("fsdp"):
        problems.add("has no effect without --fsdp", flag="--fsdp_config")
    for name in ("hub_model_id", "hub_revision", "hub_private_repo"):
        if given.get(name) is not None and not given.get("push_to_hub"):
            problems.add("has no effect without --push_to_hub", flag=f"--{name}")
    _json_files(given, problems)


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


def _prepare(options: PrepareOptions, problems: Problems) -> None:
    if options.list and options.clean:
        problems.add("shows what --clean deletes; give one of them", flag="--list")
    if options.list or options.clean:
        return
    _data(options, problems)
    if not (options.train_file or options.validation_file or options.dataset_name):
        problems.add("no text; name a file or a folder: --train_file TEXT", flag="--train_file")
    if not (options.tokenizer_name or options.model_name_or_path):
        problems.add("name a tokenizer: a folder, a tokenizer.json or a hub name", flag="--tokenizer_name")
    if options.objective == "clm":
        wrong = {"--max_seq_length": options.max_seq_length, "--line_by_line": options.line_by_line}
        hint = "belongs to --objective mlm"
    else:
        wrong, hint = {"--block_size": options.block_size}, "masked training calls this --max_seq_length"
    for flag, value in wrong.items():
        if value:
            problems.add(hint, flag=flag)
    _chunking(options, problems)
    if options.chunking == "documents" and options.objective == "mlm":
        problems.add("belongs to --objective clm", flag="--chunking")
    if options.pad_to_max_length and not options.line_by_line:
        problems.add("only lines can be padded; blocks are full. Add --line_by_line", flag="--pad_to_max_length")
    if options.compat and options.compat != f"run_{options.objective}":
        problems.add(f"{options.compat} prepares for --objective {options.compat[4:]}", flag="--compat")
