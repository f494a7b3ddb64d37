# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""LoRA as options: train small matrices beside frozen weights."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from lmtrain.config.about import option
from lmtrain.core.errors import Problems

ALL_LINEAR = "all-linear"  # PEFT's word for every linear layer but the output head


@dataclass
class LoraOptions:
    """Whether an adapter is trained instead of the weights, and of what shape.

    The rank and the dropout are PEFT's defaults; α/r = 2 is TRL's (32/16).
    """

    title: ClassVar[str] = "LoRA"

    use_peft: bool = option(
        False,
        "Freeze the model and train low-rank matrices beside its layers (LoRA). The run ends in an adapter folder.",
        aliases=("use_lora",),
    )
    lora_r: int = option(8, "Rank of the matrices.", at_least=0, aliases=("lora_rank",))
    lora_alpha: float = option(
        16, "Scale: what they add is multiplied by alpha / rank (by alpha / √rank with --use_rslora).", above=0
    )
    lora_dropout: float = option(0.0, "Dropout in front of them.", at_least=0, below=1)
    lora_target_modules: list[str] = option(
        [],
        f"Names of the layers that get them, such as c_attn or mlp.c_proj; {ALL_LINEAR} means every linear layer.",
        metavar="NAME",
        shown_default="the attention layers that PEFT lists for the model type, else every linear layer",
    )
    lora_query_value: bool = option(
        False,
        "Adapt query and value of each attention layer, as the LoRA paper does. Of GPT-2, which makes them in one "
        "product, each gets matrices of its own.",
    )
    modules_to_save: list[str] = option(
        [],
        "Names of modules to train whole beside them, such as lm_head.",
        metavar="NAME",
        aliases=("lora_modules_to_save",),
        shown_default="none",
    )
    use_dora: bool = option(False, "Learn the length of each weight column apart from its direction (DoRA); slower.")
    use_rslora: bool = option(False, "Scale by alpha / √rank, which keeps high ranks from being damped (rsLoRA).")
    merge_lora: bool = option(
        False, "Write a whole model in the end, the adapter merged into its weights, instead of an adapter folder."
    )


def check_lora(options: LoraOptions, given: frozenset[str], model: Any, problems: Problems) -> None:
    """Add what contradicts itself. ``given``: the options that were typed; ``model``: a ``ModelOptions``."""
    if not options.use_peft:
        said_no = "use_peft" in given  # as in the options of an earlier run, where every default is written down
        for item in fields(options):
            if item.name in given and getattr(options, item.name) != (_default(item) if said_no else None):
                problems.add("needs LoRA: add --use_peft, or leave this out", flag=f"--{item.name}")
        return
    if options.lora_r == 0:
        problems.add(
            "a rank of 0 leaves nothing to train; use --lora_r 8, or leave out --use_peft to train all weights",
            flag="--lora_r",
        )
    if ALL_LINEAR in options.lora_target_modules and len(options.lora_target_modules) > 1:
        problems.add(f"{ALL_LINEAR} stands alone; leave out the other names", flag="--lora_target_modules")
    if options.lora_query_value and options.lora_target_modules:
        problems.add("names the layers too; give one of them", flag="--lora_target_modules")
    if (model.model_type or model.config_name) and not model.model_name_or_path:
        problems.add(
            "an adapter changes a model that is there, and a new one is random; name a checkpoint: "
            "--model_name_or_path MODEL",
            flag="--use_peft",
        )


def _default(item: Any) -> Any:
    return item.default_factory() if callable(item.default_factory) else item.default
