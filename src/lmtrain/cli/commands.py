"""The commands: what each is for, the module that runs it, and examples of its use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """``module`` has ``run(options) -> int`` and is imported only when the command runs.

    A name of two words is a command under another: ``nlg score``.
    """

    name: str
    summary: str
    examples: tuple[tuple[str, str], ...]  # (what it does, command line)

    @property
    def module(self) -> str:
        return f"lmtrain.cli.{self.name.replace(' ', '_')}"


_LIST = (
    Command(
        "clm",
        "Train a causal language model (GPT-2, Llama, ...) on text: each token from those before it.",
        (
            ("Go on training a checkpoint on one's own text",
             "lmtrain clm --model_name_or_path ./gpt2 --train_file book.txt --output_dir runs/book"),
            ("A small model from scratch, with a tokenizer of one's own",
             "lmtrain clm --model_type gpt2 --config_overrides n_embd=256,n_layer=6,n_head=8 "
             "--tokenizer_name runs/tok --train_file 'notes/*.md' --output_dir runs/notes"),
            ("The whole configuration from a file, one option changed",
             "lmtrain clm --config run.yaml --learning_rate 3e-4"),
        ),
    ),
    Command(
        "mlm",
        "Train a masked language model (BERT, RoBERTa, ...) on text: hidden tokens from those around them.",
        (
            ("Adapt an encoder to one's own lines of text",
             "lmtrain mlm --model_name_or_path ./bert --train_file reports.jsonl --line_by_line "
             "--max_seq_length 128 --output_dir runs/reports"),
        ),
    ),
    Command(
        "tokenizer",
        "Train a tokenizer on text.",
        (
            ("Byte-level BPE with 8,192 tokens from a folder of code",
             "lmtrain tokenizer --train_file src/ --vocab_size 8192 --output_dir runs/tok"),
        ),
    ),
    Command(
        "prepare",
        "Tokenize text once into a store that later runs read, and count what became of it.",
        (
            ("Tokens on disk, with the ledger as JSON",
             "lmtrain prepare --train_file corpus/ --tokenizer_name runs/tok --output_dir store --json"),
            ("What is kept, and what it takes", "lmtrain prepare --list"),
        ),
    ),
    Command(
        "evaluate",
        "Loss, perplexity and bits per byte of a model on text.",
        (
            ("Score a finished run on a file",
             "lmtrain evaluate --model_name_or_path runs/book --validation_file other.txt"),
        ),
    ),
    Command(
        "generate",
        "Let a model write: completions of a causal model, ranked fillings of a masked one.",
        (
            ("Three completions of one prompt",
             "lmtrain generate --model_name_or_path runs/book 'It was' --num_return_sequences 3"),
            ("What a masked model puts in the gap",
             "lmtrain generate --model_name_or_path runs/reports 'The result was [MASK].'"),
        ),
    ),
    Command(
        "check",
        "The plan of a run before it begins: what it takes, what stands in its way. Writes no run.",
        (
            ("Before a night of training",
             "lmtrain check clm --model_name_or_path ./gpt2 --train_file book.txt --output_dir runs/book"),
        ),
    ),
    Command(
        "profile",
        "Where the time and memory of a run's steps go, and what would help. Writes no run.",
        (
            ("The steps of a run, by the options that it will have",
             "lmtrain profile clm --model_name_or_path ./gpt2 --train_file book.txt --block_size 512"),
        ),
    ),
    Command(
        "demo",
        "Everything at once in a few minutes: tokenizer, model, scores, completions, on Python's own source.",
        (("Three minutes of training", "lmtrain demo"),),
    ),
)  # fmt: skip

COMMANDS: dict[str, Command] = {command.name: command for command in _LIST}


def find_command(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command that a line begins with, by its longest name, and the words behind it; "" when there is none."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) >= length and name in COMMANDS:
            return name, list(words[length:])
    return "", list(words)


def commands_under(name: str) -> list[Command]:
    """The commands whose name goes on from ``name``."""
    return [command for command in COMMANDS.values() if command.name.startswith(f"{name} ")]
