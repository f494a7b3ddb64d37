# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""The groups of options that commands share: model, text, data, masking.

A field's name is its flag (``train_file`` is ``--train_file`` and ``--train-file``), its annotation is its
type, its default is the command's default. Each option is described here and nowhere else: the parser, the
help, docs/options.md and the checks read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import option

# What makes a model or changes it: no options of commands that only use one.
MAKES_A_MODEL = frozenset(
    {"model_type", "model_size", "config_name", "config_overrides", "attention_dropout", "dropout"}
)


@dataclass
class ModelOptions:
    """Which model and tokenizer, and how they are loaded or built."""

    title: ClassVar[str] = "Model"

    model_name_or_path: str | None = option(
        None,
        "The model: the folder of a checkpoint or of a run, or a name on the hub.",
        metavar="MODEL",
        aliases=("model",),
    )
    model_type: str | None = option(
        None,
        "Without --model_name_or_path: the type of a new model, such as gpt2, llama, bert, roberta.",
        metavar="TYPE",
    )
    model_size: str | None = option(
        None,
        "With --model_type: how many parameters the new model has, embeddings included, such as 10m, 124m or 1.3b. "
        "Width and layers follow from it and from the vocabulary.",
        metavar="SIZE",
        shown_default="the type's own",
    )
    config_name: str | None = option(
        None,
        "Without --model_name_or_path: the model whose configuration the new model takes.",
        metavar="MODEL",
    )
    config_overrides: str | None = option(
        None,
        "Changes to the new model's configuration, such as n_embd=256,n_layer=6,n_head=8.",
        metavar="KEY=VALUE,...",
    )
    tokenizer_name: str | None = option(
        None,
        "The tokenizer: a folder (such as one made by `lmtrain tokenizer`), a tokenizer.json, or a hub name.",
        metavar="TOKENIZER",
        shown_default="the model's own",
    )
    cache_dir: str | None = option(
        None,
        "Where models and data sets from the hub are kept.",
        metavar="FOLDER",
        shown_default="Hugging Face's own cache",
    )
    use_fast_tokenizer: bool = option(True, "Use the tokenizer's Rust implementation where it has one.")
    model_revision: str = option("main", "Branch, tag or commit of a hub model.", metavar="REVISION")
    token: str | None = option(
        None,
        "Access token for private or gated models on the hub. Never written into the run.",
        secret=True,
        shown_default="that of `hf auth login`, if any",
    )
    trust_remote_code: bool = option(False, "Run Python code that comes with a hub model: only for authors you trust.")
    resize_embeddings: Literal["auto", "never"] = option(
        "auto",
        "Let the embedding grow when the tokenizer has more ids than it has rows; `never` stops instead.",
    )
    attn_implementation: str | None = option(
        None,
        "Attention kernel: eager, sdpa, flash_attention_2, ...",
        metavar="NAME",
        shown_default="the model's choice",
    )
    dropout: float | None = option(
        None,
        "Dropout of everything: embeddings, hidden states and attention weights.",
        at_least=0,
        below=1,
        shown_default="the model's own",
    )
    attention_dropout: float | None = option(
        None,
        "Dropout of attention weights alone. Above 0 the fast attention kernels cannot be used; 0 is what recent "
        "models are trained with.",
        at_least=0,
        at_most=1,
        shown_default="the model's own",
    )


@dataclass
class TextOptions:
    """Which text, and how files become documents."""

    title: ClassVar[str] = "Data"
    text_flag: ClassVar[str] = "--train_file"  # what messages call the text

    dataset_name: str | None = option(None, "A data set on the hub, or a folder made by save_to_disk.", metavar="NAME")
    dataset_config_name: str | None = option(None, "Configuration of the hub data set.", metavar="NAME")
    train_file: list[str] = option(
        [],
        "Text to train on: files, globs or folders, or - for standard input; also at an address (s3://, gs://, hf://, "
        "https://). Text, Markdown, code, CSV, TSV, JSON, JSONL, Parquet, Arrow; each also .gz, .xz or .zst. Or a "
        "token store made by `lmtrain prepare`, by itself.",
        metavar="PATH",
    )
    text_column: str | None = option(
        None,
        "The field of a record that holds the text.",
        metavar="NAME",
        shown_default="`text`, else the only column of strings",
    )
    documents: Literal["auto", "lines"] = option(
        "auto",
        "What a document is: auto takes a text file as one and each record as one; lines takes each line.",
    )
    encoding: str = option("utf-8", "Encoding of text files.")
    encoding_errors: Literal["strict", "replace"] = option(
        "strict", "On bytes that are not in that encoding: stop and name the place, or put U+FFFD there."
    )
    on_bad_record: Literal["fail", "skip"] = option(
        "fail", "On a record that cannot be read: stop and name file and line, or pass over and count it."
    )
    keep_linebreaks: bool | None = option(
        None, "Keep the line break at the end of each line when lines are documents.", shown_default="no"
    )


@dataclass
class DataOptions(TextOptions):
    """Text for training and evaluation, and how its tokens become examples."""

    validation_file: list[str] = option(
        [], "Text to evaluate on.", metavar="PATH", shown_default="in a training, a part of its text"
    )
    test_file: list[str] = option([], "Text for a test, scored on its own.", metavar="PATH")
    mix: list[str] = option(
        [],
        "Shares of the training examples that texts have; each is then named: --train_file code=src/ prose=books/.",
        metavar="NAME=SHARE",
        shown_default="all of the text, once an epoch",
    )
    append_eos: bool = option(True, "Put the end-of-text token after each document (causal training).")
    chunking: Literal["blocks", "documents"] = option(
        "blocks",
        "How documents become blocks in causal training: blocks joins them, end-of-text tokens between, and loses "
        "nothing; documents takes the full windows of each by itself and drops the rests and the short ones. The "
        "ledger says what either costs.",
    )
    isolate_documents: bool = option(
        False,
        "Keep the documents of a block apart: attention stays inside each, its positions start anew, and its first "
        "token is not predicted from the one before.",
    )
    max_train_samples: int | None = option(
        None,
        "Train on at most so many blocks: the first ones, or random ones with --shuffle_documents.",
        unit="blocks",
        at_least=1,
    )
    max_eval_samples: int | None = option(
        None, "Evaluate on at most so many blocks.", unit="blocks", at_least=1, aliases=("max_val_samples",)
    )
    shuffle_documents: bool = option(
        False, "Join the training documents into blocks in a random order (a function of --seed)."
    )
    block_size: int | None = option(
        None,
        "Length of a block in causal training.",
        unit="tokens",
        at_least=2,
        shown_default="the smaller of 1024 and the model's positions",
    )
    max_seq_length: int | None = option(
        None,
        "Length of an example in masked training, of the longest pair in sft; special tokens included.",
        unit="tokens",
        at_least=2,
        shown_default="the smaller of 1024 and the model's positions",
    )
    line_by_line: bool = option(False, "Each line is an example of its own (masked training); longer ones are cut.")
    pad_to_max_length: bool = option(
        False, "With --line_by_line: pad every example to --max_seq_length, not to the longest of its batch."
    )
    drop_remainder: bool = option(
        True,
        "Leave out the last tokens when they do not fill a block; `false` trains on them as a short block.",
    )
    validation_split_percentage: float = option(
        5.0,
        "Part of the training text kept for evaluation when there is no validation data.",
        unit="per cent",
        at_least=0,
        at_most=100,
    )
    validation_split_mode: Literal["first", "hash", "files"] = option(
        "first", "Which part: the first documents, documents chosen by their content, or whole files."
    )
    preprocessing_num_workers: int | None = option(
        None,
        "Processes that read and tokenize, each with one thread (sft: threads that tokenize).",
        unit="processes",
        at_least=1,
        shown_default="one, that tokenizes with a thread a core",
    )
    streaming: bool = option(False, "Read a hub data set as a stream instead of downloading it first.")
    overwrite_cache: bool = option(False, "Tokenize again even if the same text was tokenized before.")
    data_cache_dir: str | None = option(
        None,
        "Where tokenized text is kept.",
        metavar="FOLDER",
        shown_default="$LMTRAIN_CACHE, else $XDG_CACHE_HOME/lmtrain, else ~/.cache/lmtrain",
    )
    data_cache_gb: float = option(
        20.0,
        "Disk that the parts of token stores on object storage take in --data_cache_dir, for all processes of a "
        "machine together; the least recently used ones go first.",
        unit="GB",
        above=0,
    )
    shuffle_window: float | None = option(
        None,
        "Shuffle examples within windows of about so much of a token store, and the order of the windows' parts, "
        "instead of all with all: for stores that are larger than memory, on spinning disks or on object storage. The "
        "order is a function of the seed and the epoch.",
        unit="GB",
        above=0,
        shown_default="no windows; for a store on object storage that is larger, a quarter of --data_cache_gb",
    )
    compat: Literal["run_clm", "run_mlm"] | None = option(
        None,
        "Treat text as that script did before transformers 4.10: each line a document without its line break, blank "
        "lines kept, no end-of-text tokens, the first column, the first per cent of the rows for validation. With "
        "--keep_linebreaks as today's run_clm does.",
    )


@dataclass
class MaskingOptions:
    """Which tokens a masked model has to guess."""

    title: ClassVar[str] = "Masking"

    mlm_probability: float = option(0.15, "Share of the tokens to be guessed.", above=0, at_most=1)
    mask_whole_words: bool = option(False, "Mask all tokens of a word or none (where the tokenizer tells words apart).")
