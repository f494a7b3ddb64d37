"""The options of ``lmtrain export``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import option
from lmtrain.config.groups import MAKES_A_MODEL, ModelOptions
from lmtrain.core.errors import Problems

_TARGETS = ("hf", "peft", "loralib", "merged")


@dataclass
class ExportOptions(ModelOptions):
    """``lmtrain export MODEL OUT --to ...``: the same model in another form, compared before it is left there."""

    without: ClassVar[frozenset[str]] = MAKES_A_MODEL | {
        "model_name_or_path",
        "resize_embeddings",
        "attn_implementation",
    }
    title: ClassVar[str] = "Export"

    model: str | None = option(
        None,
        "What to export: a run or checkpoint, an adapter folder, a loralib .pt file, or a hub name.",
        metavar="MODEL",
        positional=True,
    )
    out: str | None = option(
        None, "Where to: a new folder, or a new .pt file with --to loralib.", metavar="OUT", positional=True
    )
    to: Literal["hf", "peft", "loralib", "merged"] | None = option(
        None,
        "As what: hf or merged, a whole model as from_pretrained loads it, with an adapter merged into its weights; "
        "peft, an adapter folder; loralib, the .pt file of microsoft/LoRA's GPT-2.",
    )
    base: str | None = option(
        None,
        "The model that an adapter is for. A loralib file does not name it.",
        metavar="MODEL",
        shown_default="the one that the adapter names",
    )
    lora_alpha: float | None = option(
        None, "Alpha of the adapter in a loralib file, which does not hold it.", above=0, shown_default="as recorded"
    )
    full: bool = option(False, "With --to loralib: all weights of the model too, as the original's last checkpoint.")

    def check(self, problems: Problems) -> None:
        """Add what is missing or has no meaning."""
        if not self.model:
            problems.add("name what to export: lmtrain export MODEL OUT --to merged", flag="MODEL")
        elif not self.out:
            problems.add(f"name where to: lmtrain export {self.model} OUT --to merged", flag="OUT")
        if self.to is None:
            problems.add(f"say as what: one of {', '.join(_TARGETS)}", flag="--to")
        if self.full and self.to not in ("loralib", None):
            problems.add("belongs to --to loralib; other whole models are --to merged", flag="--full")
        if self.to == "loralib" and self.out and not self.out.endswith(".pt"):
            problems.add(f"{self.out}: a loralib export is one file; call it something.pt", flag="OUT")
