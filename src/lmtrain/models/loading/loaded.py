"""What loading a checkpoint and making a new model have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmtrain.models.loading.tokenizer import Purpose

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass
class LoadedModel:
    """``model`` in fp32; ``lines`` say where it comes from and what was done; ``new``: not loaded.

    ``rows_before``: rows of the embedding before it grew to the tokenizer's ids. ``adapter``: the adapter folder that
    was merged into it. ``dtype``: what the checkpoint is written in, None where it does not say.
    """

    model: PreTrainedModel
    lines: list[str] = field(default_factory=list)
    new: bool = False
    rows_before: int | None = None
    adapter: str | None = None
    dtype: torch.dtype | None = None


def auto_class(purpose: Purpose) -> Any:
    """The library's class for models of this purpose."""
    import transformers

    return transformers.AutoModelForCausalLM if purpose == "clm" else transformers.AutoModelForMaskedLM


def attention_keywords(options: Any) -> dict[str, str]:
    """The keywords that choose an attention kernel, where the user names one."""
    return {"attn_implementation": options.attn_implementation} if options.attn_implementation else {}


def speaks_of_attention(error: Exception) -> bool:
    """Whether the library complains about the attention kernel."""
    return "attn_implementation" in str(error) or "ttention" in str(error)
