"""The options of ``lmtrain prepare``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import option
from lmtrain.config.checks.data import check_apart, check_chunking, check_data
from lmtrain.config.groups import MAKES_A_MODEL, DataOptions, ModelOptions
from lmtrain.config.shard import shard_of
from lmtrain.core.addresses import is_address
from lmtrain.core.errors import Problems


@dataclass
class PrepareOptions(ModelOptions, DataOptions):
    """``lmtrain prepare``: tokenize text into a store that later runs read."""

    without: ClassVar[frozenset[str]] = MAKES_A_MODEL | {
        "resize_embeddings",
        "attn_implementation",
        "isolate_documents",
        "test_file",
        "data_cache_gb",
        "shuffle_window",
    }
    title: ClassVar[str] = "Store"

    objective: Literal["clm", "mlm"] = option(
        "clm", "The training the blocks in the ledger are counted for: causal or masked."
    )
    preprocessing_num_workers: int | None = option(
        None,
        "Processes that read and tokenize, each with one thread.",
        unit="processes",
        at_least=1,
        shown_default="for 256 MB of text and more one a core, up to 16; else one, that tokenizes with a thread a core",
    )
    output_dir: str | None = option(
        None,
        "Folder for the token store, or an address (s3://bucket/store); later runs find it there.",
        metavar="FOLDER",
        shown_default="a place in --data_cache_dir",
    )
    shard: str | None = option(
        None,
        "Make only part I of N, with I from 0, such as $SLURM_ARRAY_TASK_ID/64: by hand or as tasks of an array job, "
        "in any order, on any machines that see the same folders. --merge N then makes the store.",
        metavar="I/N",
    )
    merge: int | None = option(
        None,
        "Make the store of the N shards that the same command made with --shard; they are deleted then.",
        unit="shards",
        at_least=1,
        shown_default="prepare the text itself",
    )
    engine: Literal["local", "ray"] = option(
        "local",
        "Who runs the processes of --preprocessing_num_workers: this machine, or Ray (pip install 'lmtrain[ray]'), on "
        "the cluster of RAY_ADDRESS where that is set.",
    )
    json: bool = option(False, "Print the ledger as one JSON object.")
    list: bool = option(False, "Show the stores in --data_cache_dir with their sizes, and prepare nothing.")
    clean: bool = option(False, "Delete the stores in --data_cache_dir, and prepare nothing.")

    def check(self, problems: Problems) -> None:
        """Add what is missing or contradicts itself."""
        if self.list and self.clean:
            problems.add("shows what --clean deletes; give one of them", flag="--list")
        if self.list or self.clean:
            return
        check_data(self, problems)
        check_apart(self, self.output_dir, "--output_dir", problems)
        self._check_shards(problems)
        if not (self.train_file or self.validation_file or self.dataset_name):
            problems.add("no text; name a file or a folder: --train_file TEXT", flag="--train_file")
        if not (self.tokenizer_name or self.model_name_or_path):
            problems.add("name a tokenizer: a folder, a tokenizer.json or a hub name", flag="--tokenizer_name")
        if self.objective == "clm":
            wrong = {"--max_seq_length": self.max_seq_length, "--line_by_line": self.line_by_line}
            hint = "belongs to --objective mlm"
        else:
            wrong, hint = {"--block_size": self.block_size}, "masked training calls this --max_seq_length"
        for flag, value in wrong.items():
            if value:
                problems.add(hint, flag=flag)
        check_chunking(self, problems)
        if self.chunking == "documents" and self.objective == "mlm":
            problems.add("belongs to --objective clm", flag="--chunking")
        if self.pad_to_max_length and not self.line_by_line:
            problems.add("only lines can be padded; blocks are full. Add --line_by_line", flag="--pad_to_max_length")
        if self.compat and self.compat != f"run_{self.objective}":
            problems.add(f"{self.compat} prepares for --objective {self.compat[4:]}", flag="--compat")

    def _check_shards(self, problems: Problems) -> None:
        if self.shard is None and self.merge is None:
            return
        if self.shard is not None:
            with problems.collect():
                shard_of(self.shard)
        if self.shard is not None and is_address(self.output_dir or ""):
            problems.add(
                "parts are made in a folder that all machines see; name the address with --merge", flag="--shard"
            )
        if self.shard is not None and self.merge is not None:
            problems.add("puts together what --shard makes; give one of them", flag="--merge")
        for name in ("train_file", "validation_file"):
            if "-" in getattr(self, name):
                problems.add("standard input is read by one command; write it to a file first", flag=f"--{name}")
