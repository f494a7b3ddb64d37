"""The options of ``lmtrain evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import SEEDS, option
from lmtrain.config.checks.data import check_data
from lmtrain.config.checks.model import check_model_given
from lmtrain.config.groups import MAKES_A_MODEL
from lmtrain.config.key_tokens import check_key_tokens
from lmtrain.config.options import DataOptions, KeyTokenOptions, MaskingOptions, ModelOptions, Resolved, RunOptions
from lmtrain.core.errors import Problems, UserError


@dataclass
class EvaluateOptions(KeyTokenOptions, MaskingOptions, DataOptions, ModelOptions):
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

    def check(self, problems: Problems) -> None:
        """Add what is missing or contradicts itself."""
        check_model_given(self, problems)
        check_data(self, problems)
        if not (self.validation_file or self.test_file or self.dataset_name):
            problems.add("nothing to evaluate on; name a text: --validation_file TEXT", flag="--validation_file")
        check_key_tokens(self, frozenset(), problems)
