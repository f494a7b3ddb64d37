"""What the tests of this folder share."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

from make_fixtures import digest
from nlg_texts import AWKWARD, E2E, FACTS, PLAIN_FACTS, PUBS, WEBNLG, Corpus, templates

HAS_JAVA_SCORERS = shutil.which("java") is not None and find_spec("pycocoevalcap") is not None

__all__ = [
    "AWKWARD", "E2E", "FACTS", "HAS_JAVA_SCORERS", "PLAIN_FACTS", "PUBS", "WEBNLG", "Corpus", "apart", "digest",
    "templates",
]  # fmt: skip


def apart(corpus: Corpus) -> tuple[list[str], list[list[str]]]:
    """Predictions and references of a corpus."""
    return [text for text, _ in corpus], [references for _, references in corpus]
