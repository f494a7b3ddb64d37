"""Which positions are predicted, and the loss over them."""

from lmtrain.objectives.base import IGNORED, Labelled, Objective
from lmtrain.objectives.causal import Causal
from lmtrain.objectives.completion import Completion
from lmtrain.objectives.key_tokens import KeyIds, KeyTokens, find_key_ids
from lmtrain.objectives.loss import LossSums, loss_sums, model_loss_sums
from lmtrain.objectives.masked import EVALUATION_EPOCH, Masked
from lmtrain.objectives.words import word_starts

__all__ = [
    "EVALUATION_EPOCH",
    "IGNORED",
    "Causal",
    "Completion",
    "KeyIds",
    "KeyTokens",
    "Labelled",
    "LossSums",
    "Masked",
    "Objective",
    "find_key_ids",
    "loss_sums",
    "model_loss_sums",
    "word_starts",
]
