"""Adapters as tests need them: small, and moved away from where they begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lmtrain.config.adapter import LoraOptions
from lmtrain.config.options import ModelOptions
from lmtrain.models import load_model, load_tokenizer
from tiny_models import PURPOSE, checkpoint


def options(**changes: Any) -> LoraOptions:
    return LoraOptions(**{"use_peft": True, "lora_r": 2, **changes})


def stirred(model: Any, seed: int = 3) -> Any:
    """As if trained: whatever can learn has other values than at the start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model


def with_added_tokens(kind: str, folder: Path) -> tuple[str, str]:
    """A checkpoint, and a tokenizer with two tokens more than it has rows for."""
    base = checkpoint(kind, folder / "base")
    chosen = ModelOptions(model_name_or_path=base)
    tokenizer = load_tokenizer(chosen)
    have = load_model(chosen, PURPOSE[kind], None).model.get_input_embeddings().weight.shape[0]
    tokenizer.add_tokens(["<a>", "<b>"] + [f"<more {n}>" for n in range(max(0, have - len(tokenizer)))])
    tokenizer.save_pretrained(folder / "tokenizer")
    return base, str(folder / "tokenizer")
