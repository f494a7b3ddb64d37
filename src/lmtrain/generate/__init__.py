"""Completions of causal models, beam search over token ids, and fillings of masked models.

Knows neither data nor how models are loaded.

Importing this package imports neither torch nor transformers; calling it does.
"""

from lmtrain.generate.beam import beam_search
from lmtrain.generate.complete import complete
from lmtrain.generate.completion import Completion
from lmtrain.generate.fill import FilledText, Filling, fill_mask
from lmtrain.generate.settings import Settings

__all__ = ["Completion", "FilledText", "Filling", "Settings", "beam_search", "complete", "fill_mask"]
