"""The commands: what each is for, the module that runs it, and examples of its use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmtrain.config.commands import TRAINING_COMMANDS


@dataclass(frozen=True, slots=True)
class Command:
    """``module`` has ``run(options) -> int`` and is imported only when the command runs; the trainings share one.

    A name of two words is a command under another: ``nlg score``.
    """

    name: str
    summary: str
    examples: tuple[tuple[str, str], ...]  # (what it does, command line)

    @property
    def module(self) -> str:
        name = "training" if self.name in TRAINING_COMMANDS else self.name.replace(" ", "_").replace("-", "_")
        return f"lmtrain.cli.{name}"


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
        "sft",
        "Train a causal model on pairs of a context and a completion: records, or chats.",
        (
            ("An adapter (LoRA) for questions and answers in one's own JSON Lines",
             "lmtrain sft --model_name_or_path ./gpt2 --train_file pairs.jsonl --use_peft --output_dir runs/answers"),
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
        "filter",
        "Of a corpus, what passes rules (keywords, expressions, lengths), each text once. One pass, flat memory.",
        (
            ("What uses one of four libraries, of records whose text is in the field content",
             "lmtrain filter --source corpus/ --text_column content --keep_any pandas,sklearn,matplotlib,seaborn "
             "--output filtered"),
            ("Each text once, also of those that differ in a few words",
             "lmtrain filter --source corpus/ --deduplicate near --output once"),
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
            ("A session: a prompt a line, answered as it is written",
             "lmtrain generate --model_name_or_path runs/book --interactive"),
            ("What a masked model puts in the gap",
             "lmtrain generate --model_name_or_path runs/reports 'The result was [MASK].'"),
        ),
    ),
    Command(
        "nlg",
        "Data to text: adapt a model to E2E, WebNLG or DART, let it write, and score it as the papers do.",
        (
            ("The set-up of the LoRA paper, for three seeds",
             "lmtrain nlg e2e --train train.txt --valid valid.txt --test test.txt --model ./gpt2-medium "
             "--seeds 110,111,112 --output_dir runs/e2e"),
        ),
    ),
    Command(
        "nlg demo",
        "The same in minutes on a corpus that every machine has: Python's own documentation.",
        (("Three minutes", "lmtrain nlg demo"),),
    ),
    Command(
        "nlg train",
        "The training of a data-to-text task alone, with the published settings.",
        (
            ("On texts of nlg convert, or token ids of nlg encode",
             "lmtrain nlg train e2e --train train.jsonl --valid valid.jsonl --model ./gpt2 --output_dir runs/e2e"),
        ),
    ),
    Command(
        "nlg convert",
        "Data-to-text corpora (E2E, WebNLG 2017, DART) to records: a line of JSON with context and completion.",
        (
            ("The training data of E2E", "lmtrain nlg convert e2e train.txt train.jsonl"),
        ),
    ),
    Command(
        "nlg encode",
        "Records to token ids, as the original GPT-2 data-to-text example reads them.",
        (
            ("With the end-of-text token behind context and completion",
             "lmtrain nlg encode train.jsonl train.ids.jsonl --tokenizer_name ./gpt2 --add_bos --add_eos"),
        ),
    ),
    Command(
        "nlg decode",
        "What a model writes for each input of a data-to-text set: beam search over token ids.",
        (
            ("The test set of E2E, with the settings of the published results",
             "lmtrain nlg decode --model runs/e2e --input test.ids.jsonl --output predictions.jsonl"),
        ),
    ),
    Command(
        "nlg text",
        "Token ids of nlg decode to texts, and references beside them, as the official scorers read both.",
        (
            ("The test set of E2E",
             "lmtrain nlg text e2e --predictions predictions.jsonl --records test.jsonl --tokenizer_name ./gpt2 "
             "--output_dir texts"),
        ),
    ),
    Command(
        "nlg score",
        "The official scores of a data-to-text task, with intervals; or a comparison of two outputs.",
        (
            ("E2E's five scores, as one JSON object",
             "lmtrain nlg score e2e --predictions hypotheses.txt --references references.txt --json"),
            ("Whether one output is better than another",
             "lmtrain nlg score e2e --predictions new.txt --against old.txt --references references.txt"),
        ),
    ),
    Command(
        "report",
        "A run, or several beside each other, as one page: curves, scores, samples, configuration.",
        (
            ("One page, runs/book/report.html, that needs no network", "lmtrain report runs/book"),
            ("The page while the run goes on", "lmtrain report runs/book --live"),
            ("Two runs and what differs, and every plot as a file",
             "lmtrain report runs/book runs/notes --output both.html --export svg csv"),
        ),
    ),
    Command(
        "check",
        "The plan of a run before it begins: what it takes, what stands in its way. Writes no run.",
        (
            ("Before a night of training",
             "lmtrain check clm --model_name_or_path ./gpt2 --train_file book.txt --output_dir runs/book"),
            ("How often to save, and what failures cost, on 64 GPUs",
             "lmtrain check clm --model_name_or_path ./gpt2 --train_file book.txt --output_dir runs/book --devices 64"),
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
        "verify-resume",
        "Kill a few steps of a run, resume it, and compare it to the bit with one that was left alone. Leaves no run.",
        (
            ("Whether a run could be stopped anywhere, by the options that it will have",
             "lmtrain verify-resume clm --model_name_or_path ./gpt2 --train_file book.txt --block_size 512"),
        ),
    ),
    Command(
        "gpt2-ft",
        "Train GPT-2 on encoded pairs as microsoft/LoRA's gpt2_ft.py does: its flags, its arithmetic, its checkpoints.",
        (
            ("LoRA on E2E, as in its README",
             "lmtrain gpt2-ft --train_data data/e2e/train.jsonl --valid_data data/e2e/valid.jsonl --model_card gpt2.md "
             "--init_checkpoint gpt2-medium-pytorch_model.bin --lr 0.0002 --correct_bias --adam_beta2 0.999 "
             "--warmup_step 500 --max_epoch 5 --lora_dim 4 --lora_alpha 32 --lora_dropout 0.1 --label_smooth 0.1 "
             "--work_dir runs/e2e --random_seed 110"),
        ),
    ),
    Command(
        "export",
        "A model in another form: an adapter merged into its weights, a PEFT folder, a loralib file; logits compared.",
        (
            ("A whole model from an adapter", "lmtrain export runs/book book-merged --to merged"),
            ("A checkpoint of microsoft/LoRA as an adapter folder",
             "lmtrain export model.26289.pt e2e --to peft --base gpt2-medium --lora_alpha 32"),
        ),
    ),
    Command(
        "push",
        "Upload a model that a run or an export left complete in a folder, and nothing else of that folder.",
        (
            ("After an upload that failed", "lmtrain push runs/book --hub_model_id me/book"),
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
