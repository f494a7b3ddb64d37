"""Scores of generated text, equal to those of the official scorers of E2E, WebNLG and DART."""

from lmtrain.evaluate.nlg.bootstrap import Difference, compare, intervals
from lmtrain.evaluate.nlg.published import PUBLISHED, Published, in_paper_scale
from lmtrain.evaluate.nlg.references import read_predictions, read_references
from lmtrain.evaluate.nlg.tasks import METRICS, Scores, missing, score

__all__ = [
    "METRICS", "PUBLISHED", "Difference", "Published", "Scores", "compare", "in_paper_scale", "intervals", "missing",
    "read_predictions", "read_references", "score",
]  # fmt: skip
