"""Adapters as microsoft/LoRA's data-to-text chain keeps them: loralib's tensors in a ``.pt`` file.

``gpt2_ft.py`` writes ``{"model_state_dict": tensors}`` with the names of its own GPT-2, and with ``module.`` in front,
from DistributedDataParallel, which its ``load_weight`` takes off again: a file without it is read there as nothing.
Of each layer it has, with r the rank and d the width (``loralib/layers.py``, ``MergedLinear``)::

    module.transformer.h.0.attn.c_attn.lora_A   (2r, d)   the query's A above the value's
    module.transformer.h.0.attn.c_attn.lora_B   (2d, r)   the query's B above the value's

A file in mid-training has nothing else; the last one has all weights of the model too. Alpha is in neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtrain.core.errors import Problems, UserError
from lmtrain.models.loading.gpt2_checkpoint import read_tensors, today

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import GPT2LMHeadModel

PREFIX = "module."
_ADAPTER = re.compile(r"h\.(\d+)\.attn\.c_attn\.lora_(A|B)$")


@dataclass(frozen=True)
class LoralibFile:
    """``pairs``: lora_A (2r, d) and lora_B (2d, r) by layer; ``weights``: those of the model under today's names,
    empty where the file holds the adapter alone."""

    pairs: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def r(self) -> int:
        return next((b.shape[1] for _, b in self.pairs.values()), 0)


def read_loralib(path: Path, flag: str) -> LoralibFile:
    """Take a file apart; raises :class:`UserError` for adapters of other layers or of uneven shape."""
    tensors = today(read_tensors(path, flag))
    halves: dict[int, dict[str, Tensor]] = {}
    for name in [name for name in tensors if "lora_" in name]:
        match = _ADAPTER.match(name)
        if match is None:
            raise UserError(f"{path} adapts {name}; only GPT-2's attn.c_attn is known", flag=flag)
        halves.setdefault(int(match[1]), {})[match[2]] = tensors.pop(name)
    shapes = {tuple(half[part].shape if part in half else () for part in "AB") for half in halves.values()}
    for a, b in shapes:
        if len(shapes) > 1 or len(a) != 2 or len(b) != 2 or a[0] != 2 * b[1] or b[0] != 2 * a[1]:
            raise UserError(f"{path} is not that of GPT-2 with LoRA on query and value: lora_A {a}, lora_B {b}",
                            flag=flag)  # fmt: skip
    if tensors and "wte.weight" not in tensors:
        raise UserError(f"{path} holds {sorted(tensors)[0]} beside the adapter, and no whole model", flag=flag)
    return LoralibFile({layer: (half["A"], half["B"]) for layer, half in halves.items()}, tensors)


def adapter_of(file: LoralibFile, base: GPT2LMHeadModel, alpha: float, flag: str) -> PeftModel:
    """``base`` with the adapter of ``file``, scaled by ``alpha``/r."""
    import torch

    from lmtrain.models.adapters.merged_lora import adapted_attention, merged_lora

    layers, width, r = base.config.n_layer, base.config.n_embd, file.r
    have = next(iter(file.pairs.values()))[0].shape[1]
    if set(file.pairs) != set(range(layers)) or have != width:
        raise UserError(
            f"the adapter is for {len(file.pairs)} layers of width {have}, and the model has {layers} of {width}",
            flag=flag,
        )
    adapter = merged_lora(base, r, alpha, flag=flag)
    with torch.no_grad():
        for number, layer in enumerate(adapted_attention(adapter)):
            a, b = file.pairs[number]
            layer.lora_A["default"].weight.copy_(a)
            layer.lora_B["default"].weight[:width, :r] = b[:width]
            layer.lora_B["default"].weight[2 * width :, r:] = b[width:]
    return adapter.eval()


def loralib_pairs(adapter: Any, flag: str) -> tuple[LoralibFile, float]:
    """The adapter of a ``PeftModel`` in loralib's layout, and its alpha.

    One that leaves the keys alone fits: where query and value share one A, both get it. Raises :class:`UserError` with
    every reason why another does not.
    """
    import torch

    _require_expressible(adapter, flag)
    base, pairs, alphas = adapter.get_base_model(), {}, set()
    width = base.config.n_embd
    for number, block in enumerate(base.transformer.h):
        layer: Any = block.attn.c_attn
        a, b = (getattr(layer, name)["default"].weight.detach().float() for name in ("lora_A", "lora_B"))
        r = a.shape[0] // 2
        query, value = b[:width], b[2 * width :]
        if a.shape[0] % 2 == 0 and not query[:, r:].any() and not value[:, :r].any():
            pairs[number] = (a.clone(), torch.cat([query[:, :r], value[:, r:]]))
        else:
            pairs[number] = (torch.cat([a, a]), torch.cat([query, value]))
        alphas.add(float(layer.scaling["default"]) * pairs[number][1].shape[1])
    shapes = {b.shape for _, b in pairs.values()}
    if len(shapes) > 1 or len(alphas) > 1:
        raise UserError("loralib has one rank and one alpha for all layers, and this adapter several", flag=flag)
    return LoralibFile(pairs), alphas.pop()


def _require_expressible(adapter: Any, flag: str) -> None:
    problems, config, base = Problems(), adapter.peft_config["default"], adapter.get_base_model()

    def refuse(text: str) -> None:
        problems.add(f"loralib's layout cannot say this: {text}", flag=flag)

    if base.config.model_type != "gpt2":
        refuse(f"it is of a {base.config.model_type}, and the layout is GPT-2's")
        problems.raise_if_any()
    if config.use_dora:
        refuse("DoRA learns the lengths of columns too")
    if config.modules_to_save:
        refuse(f"{', '.join(config.modules_to_save)} was trained whole")
    if config.trainable_token_indices:
        refuse("rows of new tokens were trained")
    if config.bias != "none" or config.lora_bias:
        refuse("biases were trained")
    adapted = {name for name, module in base.named_modules() if hasattr(module, "lora_B")}
    wanted = {f"transformer.h.{number}.attn.c_attn" for number in range(base.config.n_layer)}
    if adapted != wanted:
        other = sorted(adapted - wanted) or sorted(wanted - adapted)
        refuse(f"{other[0]} is {'adapted' if adapted - wanted else 'not adapted'} "
               "(all layers' attn.c_attn are, and nothing else)")  # fmt: skip
        problems.raise_if_any()
    width = base.config.n_embd
    if any(block.attn.c_attn.lora_B["default"].weight[width : 2 * width].any() for block in base.transformer.h):
        refuse("it changes the keys, and the layout has query and value only")
    problems.raise_if_any()


def write_loralib(path: Path, file: LoralibFile) -> None:
    """Write ``file`` under the names of the original, in fp32; ``weights`` are those of ``GPT2LMHeadModel``."""
    import torch

    tensors = {f"transformer.{name}": value for name, value in file.weights.items() if name != "lm_head.weight"}
    for number, (a, b) in file.pairs.items():
        tensors[f"transformer.h.{number}.attn.c_attn.lora_A"] = a
        tensors[f"transformer.h.{number}.attn.c_attn.lora_B"] = b
    if file.weights:
        tensors["lm_head.decoder.weight"] = tensors["transformer.wte.weight"]
    own = {f"{PREFIX}{name}": value.detach().float().contiguous() for name, value in tensors.items()}
    torch.save({"model_state_dict": own}, path)


def weights_of(model: GPT2LMHeadModel, flag: str) -> dict[str, Tensor]:
    """The weights of a GPT-2 for :class:`LoralibFile`; raises where its head is not its embedding."""
    if model.lm_head.weight is not model.transformer.wte.weight:
        raise UserError("the original's output head is its embedding, and this model's is another", flag=flag)
    named: Mapping[str, Tensor] = dict(model.transformer.named_parameters())
    return {name: value.detach().clone() for name, value in named.items()}
