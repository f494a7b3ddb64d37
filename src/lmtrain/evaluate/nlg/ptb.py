"""Captions as the COCO scorers see them: cut by Stanford's tokenizer, lower case, without punctuation.

Source of the details: tuetschek/e2e-metrics 1b9c4d8, pycocoevalcap/tokenizer/ptbtokenizer.py.
"""

from __future__ import annotations

from collections.abc import Callable

from lmtrain.evaluate.nlg import java
from lmtrain.evaluate.nlg.ptb_words import PUNCTUATION, words
from lmtrain.evaluate.nlg.statistics import NotComputableError


def captions(texts: list[str], *, by_jar: Callable[[list[str]], list[str]] | None = None) -> list[str]:
    """The words of each text with single spaces between them.

    The port in Python does it where it is proven for every text; otherwise the Java program does all of them (it
    looks across lines); without it: :class:`NotComputableError`, naming the first text that needs it.
    """
    cut = [words(text) for text in texts]
    found = [" ".join(each) for each in cut if each is not None]
    if len(found) == len(texts):
        return found
    first = cut.index(None)
    try:
        lines = (by_jar or java.stanford_words)(texts)
    except NotComputableError as error:
        raise NotComputableError(
            f"{cut.count(None)} of the texts, first {texts[first]!r}, must be cut by Stanford's tokenizer in Java, "
            f"and {error}"
        ) from error
    return [" ".join(word for word in line.split(" ") if word and word not in PUNCTUATION) for line in lines]
