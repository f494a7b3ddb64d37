# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""The options of ``lmtrain filter``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import option
from lmtrain.config.checks.data import check_apart, check_data, check_has_text
from lmtrain.config.groups import TextOptions
from lmtrain.core.errors import Problems

RULES = ("keep_any", "language_of_file", "keep_regex", "drop_any", "drop_regex", "min_chars", "max_chars")
"""The rules in the order in which a document meets them; the first that it fails takes it."""


@dataclass
class FilterOptions(TextOptions):
    """``lmtrain filter``: of a corpus, what passes the rules, each text once."""

    without: ClassVar[frozenset[str]] = frozenset({"keep_linebreaks"})
    title: ClassVar[str] = "Filter"
    text_flag: ClassVar[str] = "--source"

    train_file: list[str] = option(
        [],
        "What to filter: files, globs or folders, or - for standard input. JSONL, Parquet, Arrow, CSV, TSV, JSON, "
        "text, code; each also .gz, .xz or .zst.",
        metavar="PATH",
        aliases=("source",),
    )
    dataset_split: str = option("train", "The split of --dataset_name to filter.", metavar="NAME")
    mix: list[str] = option(
        [],
        "Shares of the documents of the output that sources have; each is then named: --source code=src/ prose=books/.",
        metavar="NAME=SHARE",
        shown_default="all that is kept, in the order of the sources",
    )
    seed: int = option(42, "Seed of what --mix draws: which documents of a source, and in which order.", at_least=0)
    output: str | None = option(None, "Folder for the shards of what is kept.", metavar="FOLDER")
    keep_any: list[str] = option(
        [],
        "Keep documents whose text contains one of these, as they are written; a comma separates two, \\, is a comma.",
        metavar="TEXT,...",
        shown_default="all",
    )
    keep_regex: list[str] = option(
        [], "Keep documents in which one of these regular expressions (Python's) is found.", metavar="REGEX",
        shown_default="all",
    )  # fmt: skip
    drop_any: list[str] = option(
        [], "Drop documents whose text contains one of these; written as for --keep_any.", metavar="TEXT,...",
        shown_default="none",
    )  # fmt: skip
    drop_regex: list[str] = option(
        [], "Drop documents in which one of these regular expressions is found.", metavar="REGEX", shown_default="none"
    )
    min_chars: int | None = option(None, "Drop shorter documents.", unit="characters", at_least=1, shown_default="none")
    max_chars: int | None = option(None, "Drop longer documents.", unit="characters", at_least=1, shown_default="none")
    language_of_file: list[str] = option(
        [],
        "Keep documents whose path ends so, such as .py: the path of the file, or that in --path_column of a record.",
        metavar="SUFFIX,...",
        shown_default="all",
    )
    path_column: str | None = option(
        None,
        "The field of a record that holds the path of its text.",
        metavar="NAME",
        shown_default="path, filename, file_name, file_path or max_stars_repo_path",
    )
    deduplicate: Literal["none", "exact", "near"] = option(
        "none",
        "Drop documents whose text was kept before: exact, to the letter; near, also when the two share at least "
        "--near_threshold of their runs of five words (needs the extra `dedup`).",
    )
    near_threshold: float = option(
        0.8, "Jaccard similarity of two documents from which they count as the same.", at_least=0.5, at_most=1
    )
    format: Literal["auto", "parquet", "jsonl.zst"] = option(
        "auto",
        "What the shards are: Parquet, or JSON Lines packed with zstd; auto: Parquet if all sources are tables "
        "(Parquet, Arrow). Every field of a record is kept.",
    )
    shard_bytes: int = option(
        256 << 20, "A shard ends when it has so many bytes of records before packing.", unit="bytes", at_least=1
    )
    num_proc: int | None = option(
        None,
        "Processes that read. The result does not depend on it.",
        unit="processes",
        at_least=1,
        shown_default="as many as there are cores",
    )
    json: bool = option(False, "Print the report as one JSON object.")
    overwrite: bool = option(False, "Delete what an earlier lmtrain filter wrote into --output, and begin anew.")

    def check(self, problems: Problems) -> None:
        """Add what is missing, has no meaning, or cannot keep anything."""
        check_data(self, problems)
        check_has_text(self, problems)
        check_apart(self, self.output, "--output", problems)
        if not self.output:
            problems.add("say where to, such as --output filtered/", flag="--output")
        if self.dataset_split != "train" and not self.dataset_name:
            problems.add("chooses a split of --dataset_name, which is missing", flag="--dataset_split")
        for name in ("keep_any", "drop_any"):
            for text in listed(getattr(self, name)):
                if not text:
                    problems.add("an empty text is in every document; a comma too many?", flag=f"--{name}")
                elif not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
                    problems.add(f"{text!r} holds bytes that are not UTF-8", flag=f"--{name}")
        for name in ("keep_regex", "drop_regex"):
            for pattern in getattr(self, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    problems.add(f"{pattern!r} is no regular expression: {error}", flag=f"--{name}")
        for suffix in listed(self.language_of_file):
            if len(suffix) < 2 or not suffix.startswith("."):
                problems.add(f"{suffix!r} is not how a file name ends; write it with its dot, such as .py",
                             flag="--language_of_file")  # fmt: skip
        if self.min_chars and self.max_chars and self.min_chars > self.max_chars:
            problems.add(f"{self.min_chars} is above --max_chars {self.max_chars}: nothing could be kept",
                         flag="--min_chars")  # fmt: skip
        ruled = any(getattr(self, name) for name in RULES)
        if not ruled and self.deduplicate == "none" and not self.mix:
            problems.add("no rule is given; name what to keep, such as --keep_any pandas, or --deduplicate exact",
                         flag="--keep_any")  # fmt: skip


def listed(words: list[str]) -> list[str]:
    r"""The parts of words with commas between them, each once; ``\,`` is a comma.

    >>> listed(["pandas,sklearn", r"a\,b", "pandas"])
    ['pandas', 'sklearn', 'a,b']
    """
    parts = [part.replace("\\,", ",") for word in words for part in re.split(r"(?<!\\),", word)]
    return list(dict.fromkeys(parts))
