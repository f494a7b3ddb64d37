"""Models and tokenizers: build, load, resize, agree on ids, export. Knows neither data nor training.

Importing this package imports neither torch nor transformers; calling it does.
"""

from lmtrain.models.exporting.export import save_model
from lmtrain.models.loading.build import LoadedModel, check_kind, describe, load_model, positions_of, purpose_of
from lmtrain.models.loading.configuration import find_purpose, max_positions, require_positions
from lmtrain.models.loading.tokenizer import Purpose, load_tokenizer
from lmtrain.models.loading.vocabulary import agree_on_special_ids, fit_vocabulary, rows_needed

__all__ = [
    "LoadedModel",
    "Purpose",
    "agree_on_special_ids",
    "check_kind",
    "describe",
    "find_purpose",
    "fit_vocabulary",
    "load_model",
    "load_tokenizer",
    "max_positions",
    "positions_of",
    "purpose_of",
    "require_positions",
    "rows_needed",
    "save_model",
]
