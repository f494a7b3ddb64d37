"""Texts and references, made ready as each task's scorers read them, and their scores by part of the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmtrain.data.nlg.records import Group, Record, grouped
from lmtrain.data.nlg.text import (
    chosen,
    ended,
    hypotheses_of,
    processed,
    write_grouped_references,
    write_hypotheses,
    write_reference_files,
)
from lmtrain.evaluate.nlg import Scores, in_paper_scale, intervals, score
from lmtrain.recipes.data_to_text.tasks import TASKS, Task

Interval = tuple[float, float]


@dataclass(frozen=True)
class PartScores:
    """Scores of a part of the test set in the scale of the published tables, with their 95 % intervals."""

    inputs: int
    values: dict[str, float | None]
    reasons: dict[str, str]
    intervals: dict[str, Interval] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: Scores, inputs: int, bootstrap: int, seed: int) -> PartScores:
        def scaled(name: str, value: float) -> float:
            return in_paper_scale(scores.task, name, value)

        found = intervals(scores, bootstrap, seed) if bootstrap else {}
        return cls(
            inputs,
            {name: None if value is None else scaled(name, value) for name, value in scores.values.items()},
            scores.reasons,
            {name: (scaled(name, low), scaled(name, high)) for name, (low, high) in found.items()},
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs, "scores": self.values, "intervals_95": self.intervals, "not_computed": self.reasons
        }  # fmt: skip


def score_texts(
    task: Task,
    records: Sequence[Record],
    texts: Mapping[int, str],
    folder: Path,
    *,
    bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, PartScores]:
    """Scores of each of the task's parts; ``texts`` are by the number of the first record of their input.

    Beside them the files that the official scorers read are written: ``hypotheses.txt``, and ``references.txt`` or
    ``references/reference0`` …
    """
    by_input = {records[number].context: text for number, text in texts.items()}
    scored = [record for record in records if record.context in by_input]
    how = {"tokenize": task.tokenize, "lower": task.lower}
    everything = grouped(scored)
    write_hypotheses(folder / "hypotheses.txt", hypotheses_of(everything, by_input), **how)
    if task.references is None:
        write_grouped_references(folder / "references.txt", everything, **how)
    else:
        write_reference_files(folder / "references", everything, count=task.references, **how)
    found = {}
    for part in task.parts:
        groups = grouped(chosen(scored, part))  # type: ignore[arg-type]
        if not groups:
            continue
        predictions = [processed(text, **how) for text in hypotheses_of(groups, by_input)]
        references = [_references(group, task) for group in groups]
        found[part] = PartScores.of(score(task.name, predictions, references), len(groups), bootstrap, seed)
    return found


def _references(group: Group, task: Task) -> list[str]:
    texts = group.completions
    if task.references is not None:  # as the files of references have it
        texts = [texts[number if number < len(texts) else 0] for number in range(task.references)]
    return [processed(ended(text), tokenize=task.tokenize, lower=task.lower) for text in texts]


def as_in_lora_chain(
    task: str, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """What the LoRA paper's chain makes of texts before it scores them. Doing it twice changes nothing.

    Source: microsoft/LoRA c4593f0, examples/NLG/src/gpt2_decode.py with ``--tokenize --lower --ref_num 6``, as that
    example's README runs it for WebNLG and DART. Further references are left out; fewer it fills up with the first,
    which changes no score. E2E is scored as it is.
    """
    chain = TASKS[task]
    how = {"tokenize": chain.tokenize, "lower": chain.lower}
    kept = [[processed(text, **how) for text in texts[: chain.references]] for texts in references]
    return [processed(text, **how) for text in predictions], kept
