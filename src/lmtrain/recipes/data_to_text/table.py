"""Scores of this run beside the published ones, a page wide."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from lmtrain.core.console import counted
from lmtrain.evaluate.nlg import PUBLISHED, Published
from lmtrain.recipes.data_to_text.scoring import PartScores

_WIDTH: Final = 120  # characters of a page


def table(
    task: str, by_seed: Mapping[int, Mapping[str, PartScores]], what: str, settings: Mapping[str, str] | None = None
) -> str:
    """One row for each part of the test set, then the published ones; ``what`` names the model and its training.

    Of several seeds the mean ± the standard deviation (n − 1); of one the value with its 95 % interval below it. A row
    of a part of its inputs says of how many. Below stand the ``settings``, a line by its name.
    """
    parts = list(next(iter(by_seed.values())))
    columns = list(next(iter(by_seed.values()))[parts[0]].values)
    rows: list[tuple[str, list[str]]] = []
    for part in parts:
        scores = [found[part] for found in by_seed.values()]
        name = what if part == "all" else f"{what}, {part}"
        if scores[0].inputs < scores[0].of:
            name += f", {scores[0].inputs:,} of {counted(scores[0].of, 'input')}"
        rows.append((name, [_cell([each.values[column] for each in scores]) for column in columns]))
        if len(scores) == 1 and scores[0].intervals:
            rows.append(("", [_interval(scores[0].intervals.get(column)) for column in columns]))
    published = [row for row in PUBLISHED if row.task == task]
    rows += [(_name(row), [_published(row, column) for column in columns]) for row in published]
    reasons = {c: r for found in by_seed.values() for scores in found.values() for c, r in scores.reasons.items()}
    lines = _laid_out(["", *columns], rows)
    several = len(by_seed) > 1
    spread = "mean ± standard deviation" if several else "in brackets 95 % of bootstrap resamples"
    lines += ["", f"seed{'s' if several else ''} {', '.join(map(str, by_seed))}; {spread}"]
    below = [f"{name}: {text}" for name, text in (settings or {}).items()]
    below += [f"{column}: not computed, {reason}" for column, reason in reasons.items()]
    below += sorted({f"published: {row.source}" for row in published})
    return "\n".join([*lines, *(part for line in below for part in _wrapped(line))])


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
    return f"{row.model}, {'LoRA r=4' if row.method == 'lora' else 'all weights'} (published)"


def _published(row: Published, column: str) -> str:
    value, spread = row.values.get(column), row.spread.get(column)
    if value is None:
        return ""
    return f"{value:g}" if spread is None else f"{value:g} ± {spread:g}"


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


def before_and_after(before: PartScores, after: PartScores) -> str:
    """Two rows, and why a column is empty."""
    columns = list(after.values)
    rows = [(name, [_cell([scores.values[c]]) for c in columns]) for name, scores in
            (("before training", before), ("after", after))]  # fmt: skip
    reasons = [f"{column}: not computed, {reason}" for column, reason in after.reasons.items()]
    return "\n".join([*_laid_out(["", *columns], rows), *reasons])
