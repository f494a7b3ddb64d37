"""The loop that trains; see ``loop``."""

from lmtrain.engine.trainer.loop import LMTrainer

__all__ = ["LMTrainer"]
