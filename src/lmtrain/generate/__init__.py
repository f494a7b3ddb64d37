"""Completions of causal models and fillings of masked ones. Knows neither data nor how models are loaded.

Importing this package imports neither torch nor transformers; calling it does.
"""

from lmtrain.generate.complete import Completion, Settings, complete
from lmtrain.generate.fill import FilledText, Filling, fill_mask

__all__ = ["Completion", "FilledText", "Filling", "Settings", "complete", "fill_mask"]
