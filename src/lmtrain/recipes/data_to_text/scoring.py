"""Texts and references, made ready as each task's scorers read them, and their scores by part of the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmtrain.core.files import read_json, sha256_json, write_json
from lmtrain.core.version import __version__
from lmtrain.data.nlg.records import Group, Record, grouped
from lmtrain.data.nlg.text import chosen, hypotheses_of, processed
from lmtrain.evaluate.nlg import Scores, in_paper_scale, intervals, score
from lmtrain.recipes.data_to_text.data import is_made, noted
from lmtrain.recipes.data_to_text.tasks import TASKS, Part, Task
from lmtrain.recipes.data_to_text.texts import Processing, write_texts

SCORES = "scores.json"
Interval = tuple[float, float]


@dataclass(frozen=True)
class PartScores:
    """Scores of a part of the test set in the scale of the published tables, with their 95 % intervals; of the part's
    ``of`` inputs ``inputs`` were scored."""

    inputs: int
    of: int
    values: dict[str, float | None]
    reasons: dict[str, str]
    intervals: dict[str, Interval] = field(default_factory=dict)

    @classmethod
    def made_of(cls, scores: Scores, inputs: int, of: int, bootstrap: int, seed: int) -> PartScores:
        def scaled(name: str, value: float) -> float:
            return in_paper_scale(scores.task, name, value)

        found = intervals(scores, bootstrap, seed) if bootstrap else {}
        return cls(
            inputs,
            of,
            {name: None if value is None else scaled(name, value) for name, value in scores.values.items()},
            scores.reasons,
            {name: (scaled(name, low), scaled(name, high)) for name, (low, high) in found.items()},
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs, "of": self.of, "scores": self.values, "intervals_95": self.intervals,
            "not_computed": self.reasons,
        }  # fmt: skip

    @classmethod
    def from_json(cls, made: Mapping[str, Any]) -> PartScores:
        spans: dict[str, Interval] = {name: (low, high) for name, (low, high) in made["intervals_95"].items()}
        return cls(made["inputs"], made["of"], made["scores"], made["not_computed"], spans)


def parts_of(task: Task, records: Sequence[Record]) -> tuple[Part, ...]:
    """The parts of the test set that are scored apart: the task's, where all records say in which they are."""
    return task.parts if all(record.seen is not None for record in records) else ("all",)


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
    ``references/reference0`` … Of an earlier call about the same texts the scores are taken over from
    ``scores.json``, unless some could not be had.
    """
    by_input = {records[number].context: text for number, text in texts.items()}
    scored = [record for record in records if record.context in by_input]
    groups, how = grouped(scored), Processing.of(task)
    write_texts(folder, groups, by_input, how)
    predictions, references = _ready(groups, by_input, how)
    of_records = [[record.context, record.seen] for record in records]
    target = folder / SCORES
    key = {"of": sha256_json([task.name, __version__, predictions, references, of_records, bootstrap, seed])}
    if is_made(target, key):
        known = {part: PartScores.from_json(made) for part, made in read_json(target).items()}
        if not any(scores.reasons for scores in known.values()):
            return known
    everything = score(task.name, predictions, references)
    numbers = {group.context: number for number, group in enumerate(groups)}
    found: dict[str, PartScores] = {}
    for part in parts_of(task, records):
        own = grouped(chosen(scored, part))
        members = [numbers[group.context] for group in own]
        if not own:
            continue
        if part == "all":
            scores = everything
        elif all(groups[number] == group for number, group in zip(members, own, strict=True)):
            scores = everything.of(members)  # METEOR's program takes ten seconds each time
        else:  # an input in a category of either kind
            scores = score(task.name, *_ready(own, by_input, how))
        whole = len(grouped(chosen(records, part)))
        found[part] = PartScores.made_of(scores, len(own), whole, bootstrap, seed)
    with noted(target, key):
        write_json(target, {part: scores.as_json() for part, scores in found.items()})
    return found


def _ready(groups: Sequence[Group], by_input: Mapping[str, str], how: Processing) -> tuple[list[str], list[list[str]]]:
    return [how(text) for text in hypotheses_of(groups, by_input)], [how.references_of(group) for group in groups]


def as_in_lora_chain(
    task: str, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """What the LoRA paper's chain makes of texts before it scores them. Doing it twice changes nothing.

    Source: microsoft/LoRA c4593f0, examples/NLG/src/gpt2_decode.py with ``--tokenize --lower --ref_num 6``, as that
    example's README runs it for WebNLG and DART. Further references are left out; in place of one that is not there (an
    empty line of a file) it has the first again, which changes no score. E2E is scored as it is.
    """
    chain = TASKS[task]
    how = {"tokenize": chain.tokenize, "lower": chain.lower}
    there = ([text for text in texts if text.strip()] for texts in references)
    kept = [[processed(text, **how) for text in texts[: chain.references]] for texts in there]
    return [processed(text, **how) for text in predictions], kept
