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
    "lmtrain export model.26289.pt": "lmtrain gpt2-ft --train_data train.ids.jsonl --valid_data valid.ids.jsonl "
    "--lora_dim 4 --lora_alpha 32 --work_dir made",
}

# By the beginning of a command line: why a test executes it elsewhere, or not at all.
ELSEWHERE: dict[str, str] = {
    "lmtrain push": "needs the hub; tests/models/test_hub_upload.py has a stand-in for it",
    "lmtrain clm ... --push_to_hub": "the same",
    "lmtrain report runs/book --live": "serves until it is stopped: tests/report/test_report_live.py",
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
