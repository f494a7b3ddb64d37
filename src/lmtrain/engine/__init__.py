"""The run: trainer, evaluation, run folder, and the assembly that wires the stages together.

``LMTrainer`` is imported when it is asked for, because the Trainer it stands on takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmtrain.engine.arguments import LMTrainingArguments
    from lmtrain.engine.trainer import LMTrainer

__all__ = ["LMTrainer", "LMTrainingArguments"]


def __getattr__(name: str) -> Any:
    if name == "LMTrainer":
        from lmtrain.engine.trainer import LMTrainer

        return LMTrainer
    if name == "LMTrainingArguments":
        from lmtrain.engine.arguments import LMTrainingArguments

        return LMTrainingArguments
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
