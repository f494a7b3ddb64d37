"""Which scores each data-to-text task reports, and how its official scorer comes to them.

- ``e2e``: tuetschek/e2e-metrics 1b9c4d8, ``measure_scores.py -p``.
- ``webnlg``, ``dart``: WebNLG/GenerationEval 8067849, ``eval.py -m bleu,meteor,ter``.

The figures are those of the texts given, on the official programs' scales. One accident of GenerationEval's reading of
files is not part of them: of files that end with a line break it counts one more, empty text (TER goes from s/n to
(s+1)/(n+1), and METEOR fails where there are several references).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmtrain.evaluate.nlg import java, mteval, multi_bleu_detok, nltk_words
from lmtrain.evaluate.nlg.cider import cider
from lmtrain.evaluate.nlg.meteor import meteor
from lmtrain.evaluate.nlg.ptb import captions
from lmtrain.evaluate.nlg.rouge_l import rouge_l
from lmtrain.evaluate.nlg.statistics import NotComputableError, Statistics
from lmtrain.evaluate.nlg.ter import ter

METRICS: dict[str, tuple[str, ...]] = {
    "e2e": ("BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"),
    "webnlg": ("BLEU", "METEOR", "TER"),
    "dart": ("BLEU", "METEOR", "TER"),
}

Texts = tuple[list[str], list[list[str]]]  # predictions, and the references of each


@dataclass(frozen=True)
class Scores:
    """Scores of one output by name; one that cannot be had exactly is None, with its reason.

    ``statistics`` are the sums behind those that are there, for intervals and comparisons.
    """

    task: str
    values: dict[str, float | None]
    reasons: dict[str, str]
    statistics: dict[str, Statistics] = field(repr=False)

    def of(self, sentences: Sequence[int]) -> Scores:
        """The scores of some of the sentences, by their numbers: those that ``score`` would give them alone.

        Not of E2E, whose NIST and CIDEr weigh words by all the references (ValueError).
        """
        if self.task == "e2e":
            raise ValueError("a part of E2E's sentences has scores of its own")
        chosen = {n: Statistics(found.rows[list(sentences)], found.figure) for n, found in self.statistics.items()}
        return _scores(self.task, chosen, self.reasons)


def missing() -> dict[str, str]:
    """The scores that no text can have on this machine, whatever the task, and why."""
    try:
        java.require_meteor()
    except NotComputableError as error:
        return {"METEOR": str(error)}
    return {}


def score(task: str, predictions: list[str], references: list[list[str]]) -> Scores:
    """Score ``predictions``, each against its own list of references, as ``task``'s official scorer does.

    ``references`` may have lists of different lengths; an empty reference counts as one (write it only where the
    official file has an empty line). ValueError for lists that do not fit and for texts with line breaks.
    """
    _check(task, predictions, references)
    scorers = _e2e(predictions, references) if task == "e2e" else _webnlg(predictions, references)
    found: dict[str, Statistics] = {}
    reasons: dict[str, str] = {}
    for name in METRICS[task]:
        try:
            found[name] = scorers[name]()
        except NotComputableError as error:
            reasons[name] = str(error)
    return _scores(task, found, reasons)


def _scores(task: str, found: dict[str, Statistics], reasons: dict[str, str]) -> Scores:
    """``reasons`` are those of the scores that were not found."""
    values = {name: found[name].score if name in found else None for name in METRICS[task]}
    undefined = [name for name, value in values.items() if value is not None and np.isnan(value)]
    why = "the official scorer divides by zero on these texts"
    return Scores(
        task,
        {name: None if name in undefined else value for name, value in values.items()},
        {**reasons, **dict.fromkeys(undefined, why)},
        {name: statistics for name, statistics in found.items() if name not in undefined},
    )


def _check(task: str, predictions: list[str], references: list[list[str]]) -> None:
    if task not in METRICS:
        raise ValueError(f"unknown task {task!r}; there are {', '.join(METRICS)}")
    if not predictions:
        raise ValueError("there is nothing to score: no predictions")
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions and {len(references)} lists of references")
    for number, (prediction, texts) in enumerate(zip(predictions, references, strict=True), start=1):
        if not texts:
            raise ValueError(f"prediction {number} has no references")
        for text in (prediction, *texts):
            if len(text.splitlines()) > 1 or text.endswith(("\n", "\r")):
                raise ValueError(f"a text of number {number} holds a line break; the official files cannot")


def _e2e(predictions: list[str], references: list[list[str]]) -> dict[str, Callable[[], Statistics]]:
    cut = _once(lambda: _cut_as_captions(predictions, references))

    def by_meteor() -> Statistics:
        own, others = cut()
        # The caption scorers' wrapper takes the separator out of predictions, then doubled spaces.
        return meteor([text.replace("|||", "").replace("  ", " ") for text in own], others)

    return {
        "BLEU": lambda: mteval.bleu(predictions, references),
        "NIST": lambda: mteval.nist(predictions, references),
        "METEOR": by_meteor,
        "ROUGE_L": lambda: rouge_l(*cut()),
        "CIDEr": lambda: cider(*cut()),
    }


def _cut_as_captions(predictions: list[str], references: list[list[str]]) -> Texts:
    flat = captions([text for texts in references for text in texts])  # one file of references, one of predictions
    rest = iter(flat)
    return captions(predictions), [[next(rest) for _ in texts] for texts in references]


def _webnlg(predictions: list[str], references: list[list[str]]) -> dict[str, Callable[[], Statistics]]:
    cut = _once(lambda: ([_nltk(text) for text in predictions], [[_nltk(t) for t in texts] for texts in references]))

    def by_meteor() -> Statistics:
        own, others = cut()
        if any("|||" in text for text in own):
            raise NotComputableError("a prediction holds |||, which separates texts in METEOR's protocol")
        return meteor(own, others)

    return {
        "BLEU": lambda: multi_bleu_detok.bleu(predictions, references),
        "METEOR": by_meteor,
        "TER": lambda: ter(*cut()),
    }


def _nltk(text: str) -> str:
    words = nltk_words.words(text)
    if words is None:
        raise NotComputableError(
            f"the words of {text!r} depend on where NLTK's trained Punkt model sees sentences, and that model is not "
            "part of lmtrain; texts prepared as in the LoRA chain do not depend on it"
        )
    return " ".join(words)


def _once(make: Callable[[], Texts]) -> Callable[[], Texts]:
    """``make``, called at most once; what it raised is raised again."""
    done: list[Texts | NotComputableError] = []

    def get() -> Texts:
        if not done:
            try:
                done.append(make())
            except NotComputableError as error:
                done.append(error)
        if isinstance(done[0], NotComputableError):
            raise done[0]
        return done[0]

    return get
