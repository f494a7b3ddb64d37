"""The model of a run: GPT-2 without dropout, with LoRA in query and value or trained whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lmtrain.config.commands.gpt2_ft import Gpt2FtOptions
from lmtrain.config.options import ModelOptions
from lmtrain.config.values import user_path
from lmtrain.core.console import Say, amount
from lmtrain.core.errors import UserError, about
from lmtrain.models import load_model
from lmtrain.models.adapters.loralib import (
    LoralibFile,
    adapter_of,
    loralib_pairs,
    read_loralib,
    weights_of,
    write_loralib,
)
from lmtrain.models.adapters.merged_lora import adapted_attention, merged_lora, sizes
from lmtrain.models.exporting.verified_export import export_verified
from lmtrain.models.formats import sixteen_bits
from lmtrain.models.loading.configuration import read_config
from lmtrain.models.loading.gpt2_checkpoint import SIZES, fill, gpt2_config
from lmtrain.models.loading.hub import Origin
from lmtrain.recipes.gpt2_ft.log import show

_NO_DROPOUT = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
_CARD, _INIT = "--model_card", "--init_checkpoint"


@dataclass(frozen=True)
class Made:
    """``model``, and the weights that LoRA leaves as they are, in fp32, under the names of ``GPT2Model``; none where
    all are trained."""

    model: Any
    frozen: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def has_lora(self) -> bool:
        return bool(self.frozen)

    def save(self, folder: Path, micro_batch: int, everything: bool) -> Path:
        """Write ``model.N.pt`` as the original does: ``everything``, or the LoRA tensors. Without LoRA it is always
        everything; the original writes a file of nothing there."""
        path = folder / f"model.{micro_batch}.pt"
        show(f"saving checkpoint {path}")
        if self.has_lora:
            pairs = loralib_pairs(self.model, "--lora_dim")[0].pairs
            file = LoralibFile(
                {n: (a.cpu(), b.cpu()) for n, (a, b) in pairs.items()}, self.frozen if everything else {}
            )
        else:
            file = LoralibFile(weights={name: value.cpu() for name, value in weights_of(self.model, _CARD).items()})
        unfinished = path.with_name(f".{path.name}.unfinished")
        write_loralib(unfinished, file)
        unfinished.replace(path)
        return path

    def export(self, folder: Path) -> None:
        """Leave the trained model in ``folder`` as ``from_pretrained`` reads it, LoRA merged into its weights."""
        model = self.model
        if self.has_lora:
            from transformers import GPT2LMHeadModel

            file, alpha = loralib_pairs(self.model, "--lora_dim")
            base = GPT2LMHeadModel(self.model.get_base_model().config)
            fill(base, self.frozen, str(folder), _CARD)  # in fp32, whatever the trained one is kept in
            adapter: Any = adapter_of(file, base, alpha, "--lora_dim")
            model = adapter.merge_and_unload()
        export_verified(model, None, folder, "clm")


def new_model(options: Gpt2FtOptions, say: Say, precision: str = "fp32") -> Made:
    """The model that ``options`` name, ready to be trained; in a ``precision`` of 16 bits its frozen layers are kept in
    that. Raises :class:`UserError`."""
    base, file = _base(options, say)
    if options.lora_dim == 0:
        if file.pairs:
            raise UserError(
                f"{options.init_checkpoint} holds LoRA of rank {file.r}; add --lora_dim {file.r}", flag=_INIT
            )
        say("model", "--lora_dim 0: all weights are trained, and --save_interval saves them all")
        return Made(base)
    frozen = {name: weight.detach() for name, weight in base.transformer.named_parameters()}
    if file.pairs:
        model = _go_on_with(file, base, options)
    else:
        model = merged_lora(
            base, options.lora_dim, options.lora_alpha, options.lora_dropout,
            frozen=sixteen_bits(precision), flag="--lora_dim",
        )  # fmt: skip
        _share_first_draw(model)
    say("model", _trained(model, options.lora_dim))
    return Made(model, frozen)


def _trained(model: Any, rank: int) -> str:
    trained, whole = sizes(model)
    return f"LoRA of rank {rank} in query and value: {amount(trained)} of {amount(whole, 'parameters')} are trained"


def _share_first_draw(model: Any) -> None:
    """Let all layers begin with the first one's A: the original makes one block and copies it (``model.py``)."""
    first, *others = (layer.lora_A["default"].weight for layer in adapted_attention(model))
    with torch.no_grad():
        for other in others:
            other.copy_(first)


def _go_on_with(file: LoralibFile, base: Any, options: Gpt2FtOptions) -> Any:
    """The adapter of an earlier training."""
    if file.r != options.lora_dim:
        raise UserError(f"{options.init_checkpoint} holds LoRA of rank {file.r}; use --lora_dim {file.r}", flag=_INIT)
    model: Any = adapter_of(file, base, options.lora_alpha, _INIT)
    model.peft_config["default"].lora_dropout = options.lora_dropout
    for layer in adapted_attention(model):
        layer.lora_dropout["default"] = torch.nn.Dropout(options.lora_dropout)
    return model


def _base(options: Gpt2FtOptions, say: Say) -> tuple[Any, LoralibFile]:
    """GPT-2 without an adapter, and what ``--init_checkpoint`` holds."""
    from transformers import GPT2LMHeadModel

    file = LoralibFile()
    if options.init_checkpoint:
        file = read_loralib(user_path(options.init_checkpoint), _INIT)
    folder = user_path(options.model_card)
    if options.model_card in SIZES:
        config: Any = gpt2_config(options.model_card)
    elif folder.is_dir():
        config = _config_of(folder)
        if not file.weights:
            return _from_folder(folder), file
    else:
        raise UserError(
            f"{options.model_card!r} is neither one of {', '.join(SIZES)} nor the folder of a model", flag=_CARD
        )
    model = GPT2LMHeadModel(config)
    if file.weights:
        fill(model, file.weights, f"{options.init_checkpoint} as {options.model_card}", _INIT)
    elif file.pairs:
        raise UserError(
            f"{options.init_checkpoint} holds the LoRA tensors alone, and the weights under them would be random. "
            "Give the checkpoint of an epoch's end, which holds all, or the base model's folder as --model_card",
            flag=_INIT,
        )
    else:
        say("model", f"no --init_checkpoint: {options.model_card} begins with random weights, as in the original")
    return model, file


def _config_of(folder: Path) -> Any:
    config = read_config(Origin(str(folder), folder), ModelOptions(), _CARD)
    if config.model_type != "gpt2":
        raise UserError(f"{folder} is a {config.model_type}, and this command trains GPT-2", flag=_CARD)
    config.update(_NO_DROPOUT)
    return config


def _from_folder(folder: Path) -> Any:
    with about(_CARD):
        model = load_model(ModelOptions(model_name_or_path=str(folder)), "clm", None).model
    model.config.update(_NO_DROPOUT)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model
