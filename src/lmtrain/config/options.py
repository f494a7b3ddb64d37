"""The options of a training: several groups of them, which ``from lmtrain.config.options import ...`` finds too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from lmtrain.config.adapter import LoraOptions
from lmtrain.config.groups import DataOptions, MaskingOptions, ModelOptions, TextOptions
from lmtrain.config.key_tokens import KeyTokenOptions
from lmtrain.config.pairs import PairOptions
from lmtrain.config.run import RunOptions
from lmtrain.config.samples import SampleOptions

__all__ = [
    "TRAINING_GROUPS", "AboutRun", "DataOptions", "KeyTokenOptions", "LoraOptions", "MaskingOptions", "ModelOptions",
    "PairOptions", "Resolved", "RunOptions", "SampleOptions", "TextOptions",
]  # fmt: skip

TRAINING_GROUPS: Final[dict[str, type]] = {
    "model": ModelOptions,
    "data": DataOptions,
    "pairs": PairOptions,
    "masking": MaskingOptions,
    "run": RunOptions,
    "lora": LoraOptions,
    "keys": KeyTokenOptions,
    "samples": SampleOptions,
}
"""The groups by their attribute in :class:`Resolved`."""


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


@dataclass
class AboutRun:
    """What ``lmtrain check``, ``profile`` and ``verify-resume`` are asked: their own ``options``, and the ``run`` in
    question."""

    options: Any
    run: Resolved
