"""lmtrain: text in; a trained, measured, usable language model out.

What a Python program imports stands here; ``docs/python.md`` describes each name. Nothing is loaded before it is used:
``import lmtrain`` takes neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lmtrain.core.version import __version__ as __version__

if TYPE_CHECKING:
    from lmtrain.api import clm, complete, fill_mask, mlm, prepare, score, sft, train_tokenizer
    from lmtrain.core.errors import Interrupted, UserError
    from lmtrain.data.layouts import Blocks, Lines, Pairs, Windows
    from lmtrain.data.store import TokenStore
    from lmtrain.engine.arguments import LMTrainingArguments
    from lmtrain.engine.batches.collate import Collate, EpochExamples
    from lmtrain.engine.batches.sampling import EpochOrder
    from lmtrain.engine.checkpoints.policy import Saving
    from lmtrain.engine.distributed.processes import leave_together
    from lmtrain.engine.guarding import Guarding
    from lmtrain.engine.loop_parts import StepLoss, load_checkpoint, save_checkpoint
    from lmtrain.engine.muon import muon_for
    from lmtrain.engine.trainer import LMTrainer
    from lmtrain.models import save_model
    from lmtrain.models.sharding import shard
    from lmtrain.objectives import Causal, Completion, KeyTokens, LossSums, Masked, Objective
    from lmtrain.objectives.linear_cross_entropy import linear_cross_entropy

__all__ = [
    "Blocks",
    "Causal",
    "Collate",
    "Completion",
    "EpochExamples",
    "EpochOrder",
    "Guarding",
    "Interrupted",
    "KeyTokens",
    "LMTrainer",
    "LMTrainingArguments",
    "Lines",
    "LossSums",
    "Masked",
    "Objective",
    "Pairs",
    "Saving",
    "StepLoss",
    "TokenStore",
    "UserError",
    "Windows",
    "clm",
    "complete",
    "fill_mask",
    "leave_together",
    "linear_cross_entropy",
    "load_checkpoint",
    "mlm",
    "muon_for",
    "prepare",
    "save_checkpoint",
    "save_model",
    "score",
    "sft",
    "shard",
    "train_tokenizer",
]

_FROM = {
    "lmtrain.api": ("clm", "complete", "fill_mask", "mlm", "prepare", "score", "sft", "train_tokenizer"),
    "lmtrain.core.errors": ("Interrupted", "UserError"),
    "lmtrain.data.layouts": ("Blocks", "Lines", "Pairs", "Windows"),
    "lmtrain.data.store": ("TokenStore",),
    "lmtrain.engine.arguments": ("LMTrainingArguments",),
    "lmtrain.engine.batches.collate": ("Collate", "EpochExamples"),
    "lmtrain.engine.batches.sampling": ("EpochOrder",),
    "lmtrain.engine.checkpoints.policy": ("Saving",),
    "lmtrain.engine.distributed.processes": ("leave_together",),
    "lmtrain.engine.guarding": ("Guarding",),
    "lmtrain.engine.loop_parts": ("StepLoss", "load_checkpoint", "save_checkpoint"),
    "lmtrain.engine.muon": ("muon_for",),
    "lmtrain.engine.trainer": ("LMTrainer",),
    "lmtrain.models": ("save_model",),
    "lmtrain.models.sharding": ("shard",),
    "lmtrain.objectives": ("Causal", "Completion", "KeyTokens", "LossSums", "Masked", "Objective"),
    "lmtrain.objectives.linear_cross_entropy": ("linear_cross_entropy",),
}
_MODULE = {name: module for module, names in _FROM.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'lmtrain' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE[name]), name)
    globals()[name] = value  # found at once the next time
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
