"""Scores of this run beside the published ones, a page wide."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from lmtrain.core.console import counted
from lmtrain.evaluate.nlg import PUBLISHED, Published
from lmtrain.recipes.data_to_text.scoring import PartScores

_WIDTH: Final = 120  # characters of a page


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: a text for each column, and what stands ``below`` it. ``kind`` is "ours", "seed" (one of
    several) or "published"."""

    name: str
    cells: list[str]
    below: list[str] = field(default_factory=list)
    kind: Literal["ours", "seed", "published"] = "ours"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows, the names of their columns, and what is to be known about them; ``runs`` are the folders of the trainings,
    beside the file that holds the table."""

    columns: list[str]
    rows: list[Row]
    notes: list[str]
    runs: list[str]

    def as_json(self) -> dict[str, Any]:
        """As ``lmtrain report`` reads it."""
        return asdict(self)

    def as_text(self) -> str:
        """A page wide; single seeds are left out where there are several."""
        rows = []
        for row in self.rows:
            if row.kind != "seed":
                rows += [(row.name, row.cells), *([("", row.below)] if row.below else [])]
        notes = [part for line in self.notes for part in _wrapped(line)]
        return "\n".join([*_laid_out(["", *self.columns], rows), *([""] if notes else []), *notes])


def table(
    task: str, by_seed: Mapping[int, Mapping[str, PartScores]], what: str, settings: Mapping[str, str] | None = None
) -> Table:
    """One row for each part of the test set, then what is published; ``what`` names the model and its training.

    Of several seeds the mean ± the standard deviation (n − 1), then each; of one the value with its 95 % interval below
    it. A row of a part of its inputs says of how many. The notes end with the ``settings``, a line by its name.
    """
    several = len(by_seed) > 1
    parts = list(next(iter(by_seed.values())))
    columns = list(next(iter(by_seed.values()))[parts[0]].values)
    rows: list[Row] = []
    for part in parts:
        scores = {seed: found[part] for seed, found in by_seed.items()}
        first = next(iter(scores.values()))
        name = what if part == "all" else f"{what}, {part}"
        if first.inputs < first.of:
            name += f", {first.inputs:,} of {counted(first.of, 'input')}"
        spans = first.intervals if not several else {}
        below = [_interval(spans.get(column)) for column in columns] if spans else []
        rows.append(Row(name, [_cell([each.values[column] for each in scores.values()]) for column in columns], below))
        for seed, each in scores.items() if several else ():
            rows.append(Row(f"seed {seed}", [_cell([each.values[column]]) for column in columns], kind="seed"))
    published = [row for part in parts for row in PUBLISHED if (row.task, row.part) == (task, part)]
    rows += [Row(_name(row), [_published(row, column) for column in columns], kind="published") for row in published]
    reasons = {c: r for found in by_seed.values() for scores in found.values() for c, r in scores.reasons.items()}
    spread = "mean ± standard deviation" if several else "in brackets 95 % of bootstrap resamples"
    notes = [f"seed{'s' if several else ''} {', '.join(map(str, by_seed))}; {spread}"]
    notes += [f"{name}: {text}" for name, text in (settings or {}).items()]
    notes += [f"{column}: not computed, {reason}" for column, reason in reasons.items()]
    notes += sorted({f"published: {row.source}" for row in published})
    return Table(columns, rows, notes, [f"seed-{seed}" for seed in by_seed])


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return ""
    mean = statistics.fmean(known)
    return f"{mean:.2f}" if len(known) == 1 else f"{mean:.2f} ± {statistics.stdev(known):.2f}"


def _interval(bounds: tuple[float, float] | None) -> str:
    if bounds is None or any(math.isnan(bound) for bound in bounds):
        return ""
    return f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"


def _name(row: Published) -> str:
    part = "" if row.part == "all" else f", {row.part}"
    return f"{row.model}, {'LoRA r=4' if row.method == 'lora' else 'all weights'}{part} (published)"


def _published(row: Published, column: str) -> str:
    """With the digits of the paper: one behind the point in per cent, two elsewhere."""
    value, spread = row.values[column], row.spread.get(column)
    digits = 1 if value > 10 else 2
    return f"{value:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _laid_out(head: list[str], rows: list[tuple[str, list[str]]]) -> list[str]:
    cells = [head, *([name, *values] for name, values in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    lines = []
    for row in cells:
        line = row[0].ljust(widths[0]) + "".join(
            "  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)
        )
        lines.append(line.rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def before_and_after(before: PartScores, after: PartScores, runs: Sequence[str] = ()) -> Table:
    """Two rows, and why a column is empty."""
    columns = list(after.values)
    rows = [Row(name, [_cell([scores.values[c]]) for c in columns]) for name, scores in
            (("before training", before), ("after", after))]  # fmt: skip
    reasons = [f"{column}: not computed, {reason}" for column, reason in after.reasons.items()]
    return Table(columns, rows, reasons, list(runs))
