# ruff: noqa: E501 -- a table
"""Contradicting and missing options: one problem each, under the flag it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmtrain.cli.arguments import parse
from lmtrain.core.errors import UserError
from lmtrain.core.problem_block import Problem

OUT = ["--output_dir", "o"]
MODEL = ["--model_name_or_path", "m"]
DATA = ["--train_file", "TEXT"]
GOOD = [*MODEL, *DATA, *OUT]


def _problems(command: str, words: list[str], folder: Path) -> tuple[Problem, ...]:
    text = folder / "text.txt"
    text.write_text("text", encoding="utf-8")
    try:
        parse(command, [str(text) if word == "TEXT" else word for word in words])
    except UserError as error:
        return error.problems
    return ()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("clm", GOOD),
        ("mlm", [*GOOD, "--line_by_line", "--pad_to_max_length", "--max_seq_length", "64"]),
        ("clm", ["--model_type", "gpt2", "--tokenizer_name", "t", "--config_overrides", "n_layer=2", *DATA, *OUT]),
        ("clm", [*MODEL, "--model_type", "gpt2", *DATA, *OUT]),
        ("clm", [*GOOD, "--eval_strategy", "steps", "--metric_for_best_model", "eval_perplexity"]),
        ("clm", [*GOOD, "--optim_args", "beta1=0.9,beta2=0.99"]),
        ("clm", [*GOOD, "--optim", "muon", "--optim_args", "adam_ratio=0.5, momentum=0.9"]),
        ("clm", ["--config_name", "c", "--tokenizer_name", "t", *DATA, *OUT]),
        ("clm", [*MODEL, "--validation_file", "TEXT"]),  # evaluation needs no folder
        ("clm", [*MODEL, *OUT, "--dataset_name", "d", "--dataset_config_name", "c", "--streaming"]),
        ("clm", [*GOOD, "--bf16", "--precision", "bf16"]),
        ("clm", [*GOOD, "--auto_batch", "--per_device_train_batch_size", "16", "--gradient_accumulation_steps", "4"]),
        ("clm", [*GOOD, "--batch_tokens", "8192", "--auto_batch"]),
        ("clm", [*GOOD, "--global_batch_size", "24", "--auto_batch"]),
        ("clm", [*GOOD, "--global_batch_size", "24", "--per_device_train_batch_size", "6"]),
        ("profile", ["clm", *MODEL, *DATA, "--steps", "3", "--json"]),
        ("check", ["mlm", *GOOD, "--line_by_line"]),
        ("clm", [*GOOD, "--compat", "run_clm"]),
        ("clm", [*GOOD, "--compat", "run_clm", "--keep_linebreaks", "false"]),
        ("clm", [*GOOD, "--documents", "lines", "--no_keep_linebreaks"]),
        ("clm", [*GOOD, "--keep_linebreaks"]),
        ("mlm", [*GOOD, "--line_by_line", "--no_keep_linebreaks"]),
        ("clm", [*MODEL, *OUT, "--train_file", "-"]),
        ("clm", [*MODEL, *OUT, "--train_file", "none/*.txt"]),  # globs are the reader's to judge
        ("clm", [*GOOD, "--load_best_model_at_end", "--eval_strategy", "steps", "--eval_steps", "0.1", "--save_steps", "0.3"]),
        ("clm", [*GOOD, "--load_best_model_at_end", "--eval_strategy", "epoch", "--save_strategy", "best"]),
        ("clm", [*GOOD, "--load_best_model_at_end", "--eval_strategy", "epoch"]),
        ("clm", [*GOOD, "--load_best_model_at_end", "--eval_strategy", "steps", "--eval_steps", "3", "--save_steps", "4"]),
        ("tokenizer", [*DATA, *OUT]),
        ("prepare", [*DATA, "--tokenizer_name", "t"]),
        ("prepare", ["--list"]),
        ("evaluate", [*MODEL, "--validation_file", "TEXT"]),
        ("generate", [*MODEL, "prompt", "--greedy"]),
        ("demo", []),
    ],
)  # fmt: skip
def test_commands_that_are_fine(tmp_path: Path, command: str, words: list[str]) -> None:
    assert _problems(command, words, tmp_path) == ()


@pytest.mark.parametrize(
    ("command", "words", "flag", "said"),
    [
        ("clm", [*DATA, *OUT], "--model_name_or_path", "--model_type gpt2"),
        ("mlm", [*GOOD, "--metric_for_best_model", "bits_per_byte"], "--metric_for_best_model", "loss, perplexity, accuracy"),
        ("clm", [*GOOD, "--optim_args", "beta1"], "--optim_args", "'beta1'"),
        ("clm", [*GOOD, "--optim", "muon", "--optim_args", "adam_ratio"], "--optim_args", "key=value"),
        ("clm", [*GOOD, "--optim", "muon", "--optim_args", "beta1=0.9"], "--optim_args", "adam_ratio and momentum"),
        ("clm", [*GOOD, "--optim", "muon", "--optim_args", "momentum=1"], "--optim_args", "below 1"),
        ("clm", [*GOOD, "--optim", "muon", "--optim_args", "adam_ratio=many"], "--optim_args", "not a number"),
        ("mlm", [*GOOD, "--optim", "muon", "--fsdp"], "--fsdp", "--optim muon"),
        ("mlm", [*GOOD, "--optim", "muon", "--deepspeed", '{"zero_optimization": {"stage": 2}}'], "--deepspeed", "--optim muon"),
        ("clm", [*GOOD, "--optim", "muon", "--optim_target_modules", "attn"], "--optim_target_modules", "galore_adamw"),
        ("clm", [*GOOD, "--save_strategy", "best"], "--save_strategy", "--eval_strategy steps"),
        ("mlm", [*DATA, *OUT], "--model_name_or_path", "--model_type bert"),
        ("clm", ["--model_type", "gpt2", *DATA, *OUT], "--tokenizer_name", "lmtrain tokenizer"),
        ("clm", [*GOOD, "--config_overrides", "n_layer=2"], "--config_overrides", "m has its shape"),
        ("clm", ["--model_name_or_path", "bert/model.ckpt", *DATA, *OUT], "--model_name_or_path", "TensorFlow"),
        ("clm", ["--model_name_or_path", "bert/tf_model.h5", *DATA, *OUT], "--model_name_or_path", "TensorFlow"),
        ("evaluate", ["--model_name_or_path", "m.ckpt.index", "--test_file", "TEXT"], "--model_name_or_path", "TensorFlow"),
        ("clm", [*MODEL, *OUT], "--train_file", "no text"),
        ("clm", [*MODEL, *DATA], "--output_dir", "runs/mine"),
        ("clm", [*GOOD, "--dataset_name", "d"], "--dataset_name", "--train_file"),
        ("clm", [*GOOD, "--dataset_config_name", "c"], "--dataset_config_name", "--dataset_name"),
        ("clm", [*MODEL, *OUT, "--dataset_name", "my.csv"], "--dataset_name", "--train_file"),
        ("clm", [*MODEL, *OUT, "--validation_file", "TEXT", "--do_train"], "--do_train", "nothing to train on"),
        ("clm", [*GOOD, "--do_eval", "--validation_split_percentage", "0"], "--do_eval", "nothing to evaluate"),
        ("clm", [*GOOD, "--eval_strategy", "steps", "--validation_split_percentage", "0"], "--eval_strategy", "nothing to"),
        ("clm", [*GOOD, "--validation_split_percentage", "101"], "--validation_split_percentage", "at most 100"),
        ("clm", [*GOOD, "--validation_split_percentage", "-1"], "--validation_split_percentage", "at least 0"),
        ("clm", [*GOOD, "--validation_split_percentage", "100"], "--validation_split_percentage", "nothing to train"),
        ("clm", [*MODEL, *OUT, "--train_file", "-", "--validation_file", "-"], "--validation_file", "read once"),
        ("clm", [*GOOD, "--block_size", "1"], "--block_size", "at least 2"),
        ("clm", [*GOOD, "--max_seq_length", "64"], "--max_seq_length", "--block_size"),
        ("mlm", [*GOOD, "--block_size", "64"], "--block_size", "--max_seq_length"),
        ("clm", [*GOOD, "--line_by_line"], "--line_by_line", "--documents lines"),
        ("clm", [*GOOD, "--mlm_probability", "0.2"], "--mlm_probability", "lmtrain mlm"),
        ("mlm", [*GOOD, "--mlm_probability", "0"], "--mlm_probability", "above 0"),
        ("mlm", [*GOOD, "--mlm_probability", "1.5"], "--mlm_probability", "at most 1"),
        ("mlm", [*GOOD, "--pad_to_max_length"], "--pad_to_max_length", "--line_by_line"),
        ("mlm", [*GOOD, "--compat", "run_clm"], "--compat", "--compat run_mlm"),
        ("clm", [*GOOD, "--compat", "run_clm", "--append_eos"], "--compat", "--append_eos"),
        ("clm", [*GOOD, "--no_keep_linebreaks"], "--keep_linebreaks", "--documents lines"),
        ("prepare", [*DATA, "--tokenizer_name", "t", "--keep_linebreaks", "false"], "--keep_linebreaks", "--documents lines"),
        ("clm", [*GOOD, "--batch_tokens", "99", "--per_device_train_batch_size", "4"], "--batch_tokens", "--per_device_train_batch_size"),
        ("clm", [*GOOD, "--batch_tokens", "99", "--gradient_accumulation_steps", "4"], "--batch_tokens", "--gradient_accumulation_steps"),
        ("clm", [*GOOD, "--batch_tokens", "0"], "--batch_tokens", "at least 1"),
        ("clm", [*GOOD, "--auto_batch", "--fsdp"], "--auto_batch", "--fsdp divides it"),
        ("clm", [*GOOD, "--isolate_documents", "--fsdp"], "--isolate_documents", "leave it out, or leave out --fsdp"),
        ("clm", [*GOOD, "--auto_find_batch_size"], "--auto_find_batch_size", "--auto_batch"),
        ("check", ["clm", *MODEL, *DATA], "--output_dir", "runs/mine"),
        ("profile", ["clm", *MODEL, *DATA, "--steps", "0"], "--steps", "at least 1"),
        ("clm", [*GOOD, "--bf16", "--fp16"], "--bf16", "--fp16"),
        ("clm", [*GOOD, "--bf16", "--precision", "fp32"], "--precision", "--bf16, which is switched on"),
        ("clm", [*GOOD, "--no_bf16", "--precision", "bf16"], "--precision", "--bf16, which is switched off"),
        ("clm", [*GOOD, "--max_steps", "0"], "--max_steps", "at least 1"),
        ("mlm", [*GOOD, "--train_tokens", "9", "--num_train_epochs", "1"], "--train_tokens", "--num_train_epochs"),
        ("clm", [*GOOD, "--train_tokens", "9", "--max_steps", "1"], "--train_tokens", "--max_steps"),
        ("clm", [*GOOD, "--logging_steps", "1.5"], "--logging_steps", "whole number"),
        ("clm", [*GOOD, "--lr_scheduler_type", "reduce_lr_on_plateau"], "--lr_scheduler_type", "--eval_strategy"),
        ("clm", [*GOOD, "--load_best_model_at_end"], "--load_best_model_at_end", "--eval_strategy steps"),
        ("clm", [*GOOD, "--load_best_model_at_end", "--eval_strategy", "epoch", "--save_strategy", "no"], "--load_best_model_at_end", "checkpoints"),
        ("clm", [*GOOD, "--early_stopping_patience", "2"], "--early_stopping_patience", "--eval_strategy steps"),
        ("clm", [*GOOD, "--dataloader_prefetch_factor", "2"], "--dataloader_prefetch_factor", "--dataloader_num_workers"),
        ("clm", [*GOOD, "--global_batch_size", "16", "--gradient_accumulation_steps", "2"], "--global_batch_size", "--gradient_accumulation_steps"),
        ("clm", [*GOOD, "--global_batch_size", "16", "--batch_tokens", "99"], "--global_batch_size", "--batch_tokens"),
        ("clm", [*GOOD, "--global_batch_size", "16", "--dataloader_drop_last"], "--dataloader_drop_last", "leave it out"),
        ("clm", [*GOOD, "--global_batch_size", "16", "--per_device_train_batch_size", "5"], "--per_device_train_batch_size", "4 or 8"),
        ("clm", [*GOOD, "--global_batch_size", "16", "--per_device_train_batch_size", "4", "--auto_batch"], "--auto_batch", "16 examples"),
        ("clm", [*GOOD, "--global_batch_size", "0"], "--global_batch_size", "at least 1"),
        ("clm", [*GOOD, "--fsdp", "--use_cpu"], "--fsdp", "--use_cpu"),
        ("clm", [*GOOD, "--deepspeed", '{"zero_optimization": {"stage": 2}}', "--use_cpu"], "--deepspeed", "--use_cpu"),
        ("clm", [*GOOD, "--ddp_backend", "nccl", "--use_cpu"], "--ddp_backend", "--use_cpu"),
        ("clm", [*GOOD, "--deepspeed", "nowhere.json"], "--deepspeed", "no such file"),
        ("clm", [*GOOD, "--lr_scheduler_kwargs", "a=1"], "--lr_scheduler_kwargs", "JSON object"),
        ("clm", [*GOOD, "--hub_model_id", "me/m"], "--hub_model_id", "--push_to_hub"),
        ("clm", [*GOOD, "--do_predict"], "--do_predict", "--test_file"),
        ("clm", [*GOOD, "--enable_jit_checkpoint"], "--enable_jit_checkpoint", "SIGTERM"),
        ("tokenizer", [*DATA], "--output_dir", "my-tokenizer"),
        ("tokenizer", [*OUT], "--train_file", "no text"),
        ("prepare", [*DATA], "--tokenizer_name", "name a tokenizer"),
        ("prepare", ["--tokenizer_name", "t"], "--train_file", "no text"),
        ("prepare", [*DATA, "--tokenizer_name", "t", "--line_by_line"], "--line_by_line", "--objective mlm"),
        ("prepare", ["--list", "--clean"], "--list", "--clean"),
        ("evaluate", [*MODEL], "--validation_file", "nothing to evaluate"),
        ("evaluate", [*MODEL, "--model_type", "gpt2", "--test_file", "TEXT"], "--model_type", "lmtrain clm, mlm"),
        ("generate", ["prompt"], "--model_name_or_path", "name a model"),
        ("generate", [*MODEL, "p", "--greedy", "--num_return_sequences", "2"], "--num_return_sequences", "--num_beams 2"),
        ("demo", ["--minutes", "0"], "--minutes", "above 0"),
    ],
)  # fmt: skip
def test_one_problem_each(tmp_path: Path, command: str, words: list[str], flag: str, said: str) -> None:
    (problem,) = _problems(command, words, tmp_path)
    assert problem.flag == flag
    assert said in problem.text


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "shakespeare.txt").write_text("text", encoding="utf-8")
    (problem,) = _problems("clm", [*MODEL, *OUT, "--train_file", str(tmp_path / "shakespear.txt")], tmp_path)
    assert problem.text == (
        f"no such file or folder: {tmp_path / 'shakespear.txt'}; did you mean {tmp_path / 'shakespeare.txt'}?"
    )


def test_a_mistyped_name_is_not_reported_as_missing_too(tmp_path: Path) -> None:
    (problem,) = _problems("clm", ["--model_nam_or_path", "m", *DATA, *OUT], tmp_path)
    assert problem == Problem("no such option; did you mean --model_name_or_path?", "--model_nam_or_path")
    (problem,) = _problems("clm", [*MODEL, "--train_files", "TEXT", *OUT], tmp_path)
    assert problem.flag == "--train_files"


@pytest.mark.parametrize(
    ("variable", "words", "flag", "said"),
    [
        ("FSDP", ["--optim", "muon"], "--optim", "the FSDP of accelerate launch cuts them"),
        ("DEEPSPEED", ["--optim", "muon"], "--optim", "the DeepSpeed of accelerate launch cuts them"),
        ("FSDP", ["--auto_batch"], "--auto_batch", "the FSDP of accelerate launch divides it"),
        ("FSDP", ["--batch_tokens", "99"], "--batch_tokens", "the FSDP of accelerate launch divides it"),
        ("DEEPSPEED", ["--isolate_documents"], "--isolate_documents", "examples/distributed/ddp.yaml"),
        ("FSDP", ["--eval_strategy", "steps", "--sample_prompts", "a"], "--sample_prompts", "the FSDP of accelerate launch divides it"),
        ("FSDP", ["--use_cpu"], "--use_cpu", "examples/distributed/ddp.yaml"),
        ("FSDP", ["--deepspeed", '{"zero_optimization": {"stage": 2}}'], "--deepspeed", "the same work as the FSDP of accelerate launch"),
    ],
)  # fmt: skip
def test_what_accelerate_launch_asks_for_counts_as_an_option(
    variable: str, words: list[str], flag: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration comes in the environment alone."""
    monkeypatch.setenv(f"ACCELERATE_USE_{variable}", "false")
    without = _problems("clm", [*GOOD, *words], tmp_path)
    monkeypatch.setenv(f"ACCELERATE_USE_{variable}", "true")
    assert _problems("clm", GOOD, tmp_path) == () == without
    (problem,) = _problems("clm", [*GOOD, *words], tmp_path)
    assert problem.flag == flag and said in problem.text


@pytest.mark.parametrize("command", ["clm", "mlm", "tokenizer", "prepare", "filter"])
def test_a_result_inside_a_folder_of_text_is_refused(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("text", encoding="utf-8")
    more = ["--keep_any", "x"] if command == "filter" else [] if command == "tokenizer" else MODEL
    flag = "--output" if command == "filter" else "--output_dir"
    with pytest.raises(UserError) as caught:
        parse(command, [*more, "--train_file", ".", flag, "out"])
    assert [(p.flag, "lies inside ." in p.text) for p in caught.value.problems] == [(flag, True)]
    parse(command, [*more, "--train_file", "text.txt", flag, "out"])


def test_what_gpt2_ft_lacks_comes_with_what_was_mistyped(tmp_path: Path) -> None:
    found = _problems("gpt2-ft", ["--max_epochs", "5"], tmp_path)
    assert {problem.flag for problem in found} == {"--max_epochs", "--train_data", "--valid_data"}
