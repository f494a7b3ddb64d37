"""LoRA on GPT-2 as its authors trained it: query and value of ``c_attn``, each with matrices of its own.

GPT-2 makes query, key and value in one product of width 3d. loralib's ``MergedLinear`` adapts two of the three, each
with its own A (r × d) and B (d × r), and scales by α/r (microsoft/LoRA, loralib/layers.py). That is one adapter of
rank 2r and alpha 2α in which parts of B are zero::

                 A of query │ A of value                 x A'  → 2r values, x B'' → 3d values
        query  [     B_q    │     0     ]
        key    [      0     │     0     ]   = B (3d × 2r)
        value  [      0     │    B_v    ]

so PEFT holds it, and what reads PEFT reads it. The zero blocks would receive gradients, and a step would fill them:
they are taken out in the layer itself, where clipping, accumulation and copies of the model come after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lmtrain.core.errors import UserError
from lmtrain.models.frozen import keep_frozen_low
from lmtrain.models.loading.peft_wrapping import place_of, require_peft, wrap

if TYPE_CHECKING:
    from peft import PeftModel


class _BlockLinear(nn.Linear):
    """The B of an adapter whose zero blocks neither act nor learn."""

    blocks: Tensor

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight.masked_fill(~self.blocks, 0.0))


def merged_lora(
    model: Any,
    r: int,
    alpha: float,
    dropout: float = 0.0,
    *,
    frozen: torch.dtype | None = None,
    flag: str = "--use_peft",
) -> PeftModel:
    """GPT-2 with LoRA on query and value, as ``loralib.MergedLinear(enable_lora=[True, False, True])`` has it.

    ``r`` is the rank of each of the two, α/r their scale; A is drawn as ``nn.Linear`` draws its weights
    (Kaiming-uniform with a = √5), B is zero. ``frozen`` as in :func:`lmtrain.models.adapters.lora.adapt`. Raises
    :class:`UserError` with ``flag`` for another architecture.
    """
    require_peft(flag)
    from peft import LoraConfig

    if model.config.model_type != "gpt2":
        raise UserError(
            f"this is a {model.config.model_type}; only GPT-2 has query and value in one layer that this adapter knows",
            flag=flag,
        )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=2 * r,
        lora_alpha=2 * alpha,  # type: ignore[arg-type]  # annotated int, used as a number
        lora_dropout=dropout,
        target_modules=["attn.c_attn"],
        fan_in_fan_out=True,
    )
    config.base_model_name_or_path = place_of(model.name_or_path)
    adapter = wrap(model, config)
    for layer in adapted_attention(adapter):
        second: Any = layer.lora_B["default"]
        second.register_buffer("blocks", blocks(r, model.config.n_embd).to(second.weight.device), persistent=False)
        second.__class__ = _BlockLinear
    if frozen is not None:
        keep_frozen_low(adapter.get_base_model(), frozen)
    return adapter


def blocks(r: int, width: int) -> Tensor:
    """Where B (3·``width``, 2·``r``) may differ from zero: the query's and the value's own block."""
    allowed = torch.zeros(3 * width, 2 * r, dtype=torch.bool)
    allowed[:width, :r] = True
    allowed[2 * width :, r:] = True
    return allowed


def sizes(model: Any) -> tuple[int, int]:
    """How many numbers of ``model`` learn, and how many it has; what lies in zero blocks is neither."""
    zeros = sum(int((~module.blocks).sum()) for module in model.modules() if isinstance(module, _BlockLinear))
    numbers = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(n for n, learns in numbers if learns) - zeros, sum(n for n, _ in numbers) - zeros


def rank_of(model: Any) -> int:
    """The rank that was asked for: of query and value each where they have matrices of their own."""
    r: int = model.peft_config["default"].r
    return r // 2 if any(isinstance(module, _BlockLinear) for module in model.modules()) else r


def adapted_attention(adapter: Any) -> list[Any]:
    """PEFT's layers around ``c_attn``, first to last."""
    found = [(name, module) for name, module in adapter.named_modules() if name.endswith("attn.c_attn")]
    return [module for _, module in found if hasattr(module, "lora_B")]
