# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""The options of every command. (``from lmtrain.config.options import ...`` finds the shared groups too.)

A command that needs the options of several groups inherits them, so its options *are* a ``ModelOptions`` or a
``DataOptions`` wherever a function asks for one; ``without`` names the inherited fields that the command does
not offer (they keep their defaults).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lmtrain.config.about import SEEDS, option
from lmtrain.config.adapter import LoraOptions
from lmtrain.config.commands.generate import GenerateOptions
from lmtrain.config.commands.outlook import OutlookOptions
from lmtrain.config.groups import MAKES_A_MODEL, DataOptions, MaskingOptions, ModelOptions, TextOptions
from lmtrain.config.key_tokens import KeyTokenOptions
from lmtrain.config.pairs import PairOptions
from lmtrain.config.run import RunOptions
from lmtrain.config.samples import SampleOptions
from lmtrain.core.errors import UserError

__all__ = [
    "AboutRun", "CheckOptions", "DataOptions", "DemoOptions", "EvaluateOptions", "GenerateOptions", "KeyTokenOptions",
    "LoraOptions", "MaskingOptions", "ModelOptions", "OutlookOptions", "PairOptions", "PrepareOptions",
    "ProfileOptions", "Resolved", "RunOptions", "SampleOptions", "TextOptions", "TokenizerOptions",
]  # fmt: skip


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


@dataclass
class EvaluateOptions(ModelOptions, DataOptions, MaskingOptions, KeyTokenOptions):
    """``lmtrain evaluate``: loss, perplexity and bits per byte of a model on text."""

    without: ClassVar[frozenset[str]] = MAKES_A_MODEL | {
        "key_token_alpha",  # evaluation has no weights
        "mix",
        "max_train_samples",
        "shuffle_documents",
        "shuffle_window",
        "train_file",
        "validation_split_percentage",
        "validation_split_mode",
    }
    title: ClassVar[str] = "Evaluation"

    per_device_eval_batch_size: int = option(8, "Examples of one forward pass.", unit="examples", at_least=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("fp32", "Number format of the products.")
    use_cpu: bool = option(False, "Leave the accelerator alone.")
    seed: int = option(42, "Seed of the masks that a masked model is tested with.", **SEEDS)
    output_dir: str | None = option(
        None, "Folder for eval_results.json.", metavar="FOLDER", shown_default="results are only printed"
    )
    json: bool = option(False, "Print the results as one JSON object.")

    def as_run(self, purpose: Literal["clm", "mlm"]) -> Resolved:
        """The options of a run that trains nothing and scores a model of that kind."""
        if self.words and purpose == "mlm":
            raise UserError(
                "tells blocks with certain words apart for causal models, and this one is masked; leave it out",
                flag="--key_tokens",
            )
        names = ("output_dir", "per_device_eval_batch_size", "use_cpu", "seed")
        training = {"do_eval": True, **{name: getattr(self, name) for name in names}}
        return Resolved(purpose, self, self, self, RunOptions(precision=self.precision), training, keys=self)


@dataclass
class DemoOptions:
    """``lmtrain demo``: tokenizer, model, evaluation and completions on Python's own standard library."""

    title: ClassVar[str] = "Demo"

    output_dir: str = option("runs/demo", "Folder for the run.", metavar="FOLDER")
    minutes: float = option(3.0, "Time to train.", unit="minutes", above=0)
    vocab_size: int = option(8192, "Size of the tokenizer's vocabulary.", unit="tokens", at_least=300)
    source: str | None = option(
        None,
        "A folder of text or code to learn from: its files in UTF-8, one in forty held out.",
        metavar="FOLDER",
        shown_default="Python's standard library",
    )
    seed: int = option(42, "Seed of everything drawn at random.", **SEEDS)
    overwrite_output_dir: bool = option(False, "Start anew when the folder holds an earlier demo.")


@dataclass
class ProfileOptions:
    """``lmtrain profile clm|mlm``: where a step's time and memory go. The options of the run stand beside these."""

    title: ClassVar[str] = "Profile"

    steps: int = option(12, "Steps to measure, after a few to warm up.", unit="steps", at_least=1)
    json: bool = option(False, "Print the figures as one JSON object.")


@dataclass
class CheckOptions(OutlookOptions):
    """``lmtrain check clm|mlm``: the plan of a run, and all that stands in its way. The run's options as above."""

    title: ClassVar[str] = "Check"

    json: bool = option(False, "Print the plan as one JSON object.")


@dataclass
class AboutRun:
    """What ``lmtrain profile`` and ``lmtrain check`` are asked: their own ``options``, and the ``run`` in question."""

    options: Any
    run: Resolved


@dataclass
class Resolved:
    """What ``lmtrain clm``, ``mlm`` and ``sft`` run with: defaults, then the file, then the flags.

    ``training`` holds the fields of ``transformers.TrainingArguments`` that the user set (typed, by name),
    ``given`` the names of all options that were set by file or flag, ``notes`` lines worth saying, such as
    an old name that was understood.
    """

    command: str
    model: ModelOptions
    data: DataOptions
    masking: MaskingOptions
    run: RunOptions
    training: dict[str, Any] = field(default_factory=dict)
    given: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    lora: LoraOptions = field(default_factory=LoraOptions)
    pairs: PairOptions = field(default_factory=PairOptions)
    keys: KeyTokenOptions = field(default_factory=KeyTokenOptions)
    samples: SampleOptions = field(default_factory=SampleOptions)

    @property
    def purpose(self) -> Literal["clm", "mlm"]:
        """What kind of model it trains: pairs, too, are learned by a causal one."""
        return "mlm" if self.command == "mlm" else "clm"

    @property
    def output_dir(self) -> str | None:
        return self.training.get("output_dir")

    @property
    def can_train(self) -> bool:
        return bool(self.data.train_file or self.data.dataset_name)

    @property
    def can_evaluate(self) -> bool:
        if self.data.validation_file or self.data.test_file or self.data.dataset_name:
            return True
        return bool(self.data.train_file) and self.data.validation_split_percentage > 0

    @property
    def do_train(self) -> bool:
        """As asked; when neither training nor evaluation is asked for, whatever there is data for."""
        return self._wanted("do_train", self.can_train)

    @property
    def do_eval(self) -> bool:
        """As :attr:`do_train`; evaluating during training (``eval_strategy``) asks for it too."""
        if self.training.get("eval_strategy", "no") != "no":
            return True
        return self._wanted("do_eval", self.can_evaluate)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the data that the run reads, where there are such."""
        return ("train", "validation", "test") if self.do_train else ("validation", "test")

    def _wanted(self, name: str, possible: bool) -> bool:
        if self.training.get("do_train") or self.training.get("do_eval"):
            return bool(self.training.get(name))
        return possible and name not in self.training
