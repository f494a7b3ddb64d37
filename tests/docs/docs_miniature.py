"""What a command of the docs becomes when a test executes it: the only place where one is changed.

The docs name real sizes. Here stand the options that make each command take seconds, what a command with an elision
(``lmtrain clm … --eval_steps 200``) has in its place, what has to be there before some commands, and which commands
are not executed at all. A block that nothing could execute is marked in its page, on the line before it:
``<!-- not run: the reason -->``.
"""

from __future__ import annotations

_STEPS = {"max_steps": "2", "per_device_train_batch_size": "2", "use_cpu": "true"}
_NLG = {**_STEPS, "precision": "fp32"}

# By command: options that are set anew; None takes one away.
OPTIONS: dict[str, dict[str, str | None]] = {
    "clm": {**_STEPS, "block_size": "32", "num_train_epochs": None},
    "mlm": {**_STEPS, "max_seq_length": "32", "num_train_epochs": None},
    "sft": {**_STEPS, "max_seq_length": "64", "num_train_epochs": None},
    "evaluate": {"block_size": "32", "use_cpu": "true"},
    "generate": {"max_new_tokens": "4"},
    "tokenizer": {"vocab_size": "300"},
    "demo": {"minutes": "0.03", "vocab_size": "300", "source": "src"},
    "nlg": {**_NLG, "seeds": "1", "max_test_inputs": "2", "num_beams": "2", "max_new_tokens": "4", "bootstrap": "10"},
    "nlg demo": {"minutes": "0.03"},
    "nlg train": _NLG,
    "nlg decode": {"num_beams": "2", "max_new_tokens": "4"},
    "gpt2-ft": {"model_card": "gpt2", "init_checkpoint": None, "max_step": "2", "train_batch_size": "2",
                "seq_len": "64"},
    "profile": {"steps": "1"},
    "verify-resume": {"steps": "2"},
}  # fmt: skip

# By part of a command line, beyond that: the sizes that a page is about.
ALSO: dict[str, dict[str, str | None]] = {
    "--model_size": {"model_size": "100k"},
    "--eval_steps": {"eval_steps": "1"},
    "--model_type gpt2": {"config_overrides": "n_embd=32,n_layer=2,n_head=2,n_positions=64"},
}

# By command: what stands in the place of an elision.
ELIDED: dict[str, str] = {
    "clm": "--model_name_or_path ./gpt2 --train_file book.txt --output_dir runs/elided",
    "mlm": "--model_name_or_path ./bert --train_file book.txt --output_dir runs/elided",
    "sft": "--model_name_or_path ./gpt2 --train_file pairs.jsonl --output_dir runs/elided",
    "evaluate": "--validation_file book.txt",
    "generate": "'It was'",
    "nlg score": "--references references.txt",
}

# By the beginning of a command line: a command that is executed before it, without which its input is not there.
BEFORE: dict[str, str] = {
    "lmtrain export runs/book": "lmtrain clm --model_name_or_path ./gpt2 --train_file book.txt --use_peft "
    "--output_dir runs/book",
    "lmtrain nlg text e2e --predictions predictions.jsonl": "lmtrain nlg decode --model run --input test.ids.jsonl "
    "--output predictions.jsonl",
    "lmtrain report runs/e2e": "lmtrain nlg e2e --train train.txt --valid valid.txt --test test.txt --model ./gpt2 "
    "--output_dir runs/e2e",
    "lmtrain export adapter": "lmtrain clm --model_name_or_path ./gpt2 --train_file book.txt --use_peft "
    "--output_dir adapter",
    "lmtrain export model.26289.pt": "lmtrain gpt2-ft --train_data train.ids.jsonl --valid_data valid.ids.jsonl "
    "--lora_dim 4 --lora_alpha 32 --work_dir made",
}

# By a command in the running text that leaves something out: the whole command that is executed in its place.
WHOLE: dict[str, str] = {
    "lmtrain clm config.json": "lmtrain clm run.json",
    "lmtrain clm --model_type gpt2 --model_size 124m --key_tokens plt,pd,fit": "lmtrain clm --model_type gpt2 "
    "--model_size 124m --key_tokens p,f --tokenizer_name tok --train_file code --output_dir runs/elided",
    "lmtrain nlg e2e|webnlg|dart …": "lmtrain nlg e2e --train train.txt --valid valid.txt --test test.txt "
    "--model ./gpt2 --output_dir runs/elided",
    "lmtrain evaluate --model_name_or_path runs/book …": "lmtrain evaluate --model_name_or_path runs/book "
    "--validation_file book.txt",
    "lmtrain generate --model_name_or_path runs/book …": "lmtrain generate --model_name_or_path runs/book 'It was'",
    "lmtrain sft … --use_peft": "lmtrain sft --use_peft …",
    "lmtrain report RUN": "lmtrain report runs/book",
    "lmtrain report --export png": "lmtrain report runs/book --export png",
    "lmtrain export RUN OUT --to merged": "lmtrain export adapter out --to merged",
    "lmtrain export --to hf|merged": "lmtrain export runs/book out --to hf",
    "lmtrain tokenizer --like OLD --vocab_size 16384": "lmtrain tokenizer --like gpt2 --train_file book.txt "
    "--output_dir made --vocab_size 16384",
    "lmtrain tokenizer --type bpe": "lmtrain tokenizer --type bpe --train_file book.txt --output_dir made",
    "lmtrain filter --deduplicate near": "lmtrain filter --deduplicate near --source corpus --text_column content "
    "--output made",
    "lmtrain prepare --json": "lmtrain prepare --json --tokenizer_name gpt2 --train_file book.txt --output_dir made",
    "lmtrain prepare --shard I/N": "lmtrain prepare --shard 1/2 --tokenizer_name gpt2 --train_file books notes "
    "--output_dir made",
    "lmtrain nlg convert e2e IN OUT": "lmtrain nlg convert e2e train.txt made.jsonl",
    "lmtrain nlg encode IN OUT --tokenizer_name ./gpt2 --add_bos --add_eos": "lmtrain nlg encode train.jsonl "
    "made.jsonl --tokenizer_name ./gpt2 --add_bos --add_eos",
    "lmtrain nlg decode --model RUN --input IN --output OUT --beam 10 --eval_len 64": "lmtrain nlg decode --model run "
    "--input test.ids.jsonl --output made.jsonl",
    "lmtrain nlg score TASK --predictions TEXTS --references …": "lmtrain nlg score e2e --predictions hypotheses.txt "
    "--references references.txt",
    "lmtrain nlg score TASK --predictions a.txt --against b.txt --references …": "lmtrain nlg score e2e "
    "--predictions a.txt --against b.txt --references references.txt",
}

# By the beginning of a command line: why nothing here executes it. Everything else is executed, or only a name.
NOT_EXECUTED: dict[str, str] = {
    "lmtrain report runs/book --live": "serves until it is stopped: tests/report/test_report_live.py",
    "lmtrain prepare --output_dir s3://…": "needs object storage: tests/e2e/test_object_storage.py has a stand-in",
    "lmtrain prepare --engine ray": "needs the package ray, which is not among the tests'",
    "lmtrain nlg text e2e --predictions PREDICTIONS": "executed in docs/data_to_text.md with names of files",
    "make": "makes environments, or runs suites and benchmarks by itself; `make -n` reads it",
    "pip install": "needs a package index; the extras that it names are looked up",
    "python benchmarks/": "measures for minutes and hours; the options that it names are looked up",
    "python -m lmtrain.cli.options_page": "tests/cli compares its page",
    "torchrun": "tests/e2e/test_launchers.py starts them",
    "accelerate launch": "the same",
}

# Commands that take no time: `make test` executes the blocks that have no others.
SHORT = (
    "generate",
    "evaluate",
    "report",
    "nlg convert",
    "nlg encode",
    "filter",
    "tokenizer",
    "prepare",
)

# What a block of Python finds already there, by the names that it uses.
PREAMBLE = """
import os
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import lmtrain
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments, pipeline
tokenizer = AutoTokenizer.from_pretrained("gpt2")
model = AutoModelForCausalLM.from_pretrained("gpt2")
ids = tokenizer("It was a dark night", return_tensors="pt")["input_ids"]
"""
# In Python: text that is replaced.
PYTHON = {
    'output_dir="runs/book")': 'output_dir="runs/new", max_steps=2, block_size=32)',
    "block_size=512": "block_size=32",
    'TrainingArguments("runs/book")': 'TrainingArguments("runs/new", max_steps=2, report_to="none")',
    "max_steps=10": 'max_steps=2, report_to="none"',
    "max_new_tokens=40": "max_new_tokens=4",
}
