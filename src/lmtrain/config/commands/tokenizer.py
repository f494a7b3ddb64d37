# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""The options of ``lmtrain tokenizer``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import option
from lmtrain.config.checks.data import check_apart, check_data, check_has_text
from lmtrain.config.groups import TextOptions
from lmtrain.core.errors import Problems


@dataclass
class TokenizerOptions(TextOptions):
    """``lmtrain tokenizer``: train a tokenizer on text."""

    without: ClassVar[frozenset[str]] = frozenset({"keep_linebreaks"})
    title: ClassVar[str] = "Tokenizer"

    train_file: list[str] = option(
        [],
        "Text to learn from: files, globs or folders, or - for standard input.",
        metavar="PATH",
        aliases=("source",),
    )
    output_dir: str | None = option(None, "Folder for the tokenizer.", metavar="FOLDER")
    type: Literal["bpe", "wordpiece", "unigram"] | None = option(
        None,
        "Kind of tokenizer: byte-level BPE, BERT's WordPiece, or a unigram model.",
        shown_default="bpe, or that of --like",
    )
    like: str | None = option(
        None,
        "A tokenizer (a folder, a tokenizer.json, a checkpoint or a hub name) to be like: the same kind, normalisation "
        "and special tokens, with a new vocabulary.",
        metavar="TOKENIZER",
    )
    vocab_size: int = option(8192, "Size of the vocabulary, special tokens included.", unit="tokens", at_least=2)
    special_tokens: list[str] = option(
        [],
        "Special tokens, in order; beside --like they are added to its own.",
        metavar="TOKEN",
        shown_default="<|endoftext|>, or BERT's five for wordpiece",
    )
    min_frequency: int | None = option(
        None,
        "A pair must occur so often to become a token; a unigram model counts none.",
        unit="times",
        at_least=0,
        shown_default="2; with --like what transformers takes, 0",
    )
    sample_bytes: int | None = option(
        None,
        "Learn from about so much of the text, taken from all over it.",
        unit="bytes",
        at_least=1,
        shown_default="all of it",
    )
    model_max_length: int | None = option(
        None,
        "Longest input to write into the tokenizer's settings.",
        unit="tokens",
        at_least=2,
        shown_default="none",
    )

    def check(self, problems: Problems) -> None:
        """Add what is missing or contradicts itself."""
        check_data(self, problems)
        check_has_text(self, problems)
        if self.like and self.type:
            problems.add("has its kind already; give one of --like and --type", flag="--like")
        if not self.output_dir:
            problems.add("say where the tokenizer goes, such as --output_dir my-tokenizer", flag="--output_dir")
        check_apart(self, self.output_dir, "--output_dir", problems)
