"""What a model predicts: the next token or the hidden ones; and the objective that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import DataCollatorForLanguageModeling
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from lmtrain.core.errors import UserError
from lmtrain.models.sharding import class_of
from lmtrain.objectives import Causal, Labelled, Masked, Objective


def predicts_next(model: torch.nn.Module) -> bool:
    """True for a causal model, False for a masked one, by its class.

    Raises :class:`UserError` for a model that is neither, or that may be either.
    """
    unwrap: Any = getattr(model, "get_base_model", lambda: model)  # through a PEFT wrapper
    base = unwrap()
    name = class_of(base).__name__
    causal = name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    masked = name in MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()
    if causal != masked:
        return causal
    what = "may be either" if causal else "is known as neither"
    raise UserError(
        f"LMTrainer trains causal and masked language models, and {name} {what}; "
        "say which with objective=Causal() or objective=Masked(…)"
    )


def objective_for(model: torch.nn.Module, collator: Callable[..., Any] | None, tokenizer: Any, seed: int) -> Objective:
    """The objective of a user who named none: the collator's, else the model's."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):  # Bart is listed among the masked ones
        raise UserError(
            f"{class_of(model).__name__} has an encoder and a decoder, whose inputs differ, and LMTrainer trains "
            "models with one of them; transformers' Seq2SeqTrainer trains both"
        )
    if collator is not None:
        if isinstance(collator, DataCollatorForLanguageModeling) and collator.mlm:
            return Labelled(shifted=False)
        return Labelled(shifted=predicts_next(model))
    if predicts_next(model):
        return Causal()
    if tokenizer is None:
        raise UserError(
            "masked training needs to know the mask token and the vocabulary; "
            "give processing_class=tokenizer, or objective=Masked(…)"
        )
    return Masked.for_tokenizer(tokenizer, seed=seed)
