"""Which plots a page has, and the numbers in them: one value that the page, the images and the CSV files share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from lmtrain.report.ranks import PARTS, curves_by_rank
from lmtrain.report.reading import Run
from lmtrain.report.series import SMOOTHING, Table, table

PALETTE: Final = (
    ("#0067b0", "#5ab4f0"),
    ("#c8500a", "#ff8a4c"),
    ("#008562", "#2fc79b"),
    ("#b0548f", "#e39ac6"),
    ("#a97900", "#f0c04a"),
    ("#5b6470", "#a9b2bd"),
    ("#7a4a2b", "#c79a7b"),
)
"""Colours on light and on dark ground, in the order of Okabe and Ito's palette for all kinds of colour vision ("Color
Universal Design", 2008), made darker and lighter until each has a contrast of 3 to its ground."""

DASHES: Final = ("5 3", "2 3", "9 3 2 3", "12 4")
"""Of the evaluations of a run beside other runs, which then has but one colour: as SVG's ``stroke-dasharray``."""

Form = Literal["number", "percent", "bytes", "rate"]
_WIDE: Final = 30.0  # a curve whose greatest value is so many times its middle one begins on a logarithmic axis
_RANKS: Final = "ranks"  # the table of the processes' times
_NAMES: Final = re.compile(
    r"(?P<split>eval|test)_(?:(?P<set>.+)_)?(?P<score>loss|bits_per_byte|accuracy)"
    r"(?:_(?P<part>with|without)_keys)?"  # see objectives/key_tokens.py
)


@dataclass(frozen=True, slots=True)
class Line:
    """One curve in a plot: ``curve`` of the table ``table`` of run number ``run``. ``dash`` is one of :data:`DASHES`;
    empty: without breaks."""

    run: int
    table: str
    curve: str
    label: str
    colour: int
    dots: bool = False
    dash: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """``transform`` "exp" draws e to the power of the values: perplexity is that of the loss. ``smooth``: a smoothed
    line may be drawn over it."""

    id: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    form: Form = "number"
    transform: Literal["none", "exp"] = "none"
    log: bool = False
    smooth: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """``tables`` are, for each run, its curves by the table's name: ``train``, or the score of an evaluation."""

    names: tuple[str, ...]
    tables: tuple[dict[str, Table], ...]
    plots: tuple[Plot, ...]
    marks: tuple[tuple[int, ...], ...]  # steps at which each run was gone on with

    def as_json(self) -> dict[str, Any]:
        return {
            "runs": [
                {"name": name, "tables": {key: held.as_json() for key, held in tables.items()}, "marks": list(marks)}
                for name, tables, marks in zip(self.names, self.tables, self.marks, strict=True)
            ],
            "plots": [asdict(plot) for plot in self.plots],
            "smoothing": SMOOTHING,
        }


def drawing(runs: Sequence[Run]) -> Drawing:
    """The plots of some runs; those for which there is no number are left out."""
    tables = tuple(_tables(run) for run in runs)
    builder = _Builder(runs, tables)
    masked = all(run.command == "mlm" for run in runs)
    losses = builder.losses()
    plots = [
        Plot("loss", "Loss", "nats per predicted token", losses, smooth=True),
        Plot("perplexity", "Masked-token perplexity" if masked else "Perplexity", "e to the power of the loss", losses,
             transform="exp", log=True, smooth=True),
        Plot("bits_per_byte", "Bits per byte", "of validation text", builder.scores("bits_per_byte")),
        Plot("accuracy", "Accuracy", "of predicted tokens in evaluation", builder.scores("accuracy"), "percent"),
        Plot("learning_rate", "Learning rate", "at the logged step", builder.trained("learning_rate")),
        Plot("grad_norm", "Gradient norm", "before clipping", builder.trained("grad_norm"),
             log=_is_wide(tables, "grad_norm"), smooth=True),
        Plot("tokens_per_second", "Speed", "tokens per second, over all processes",
             builder.trained("tokens_per_second"), "rate", smooth=True),
        Plot("mfu", "Model FLOP/s utilisation", "of the measured peak", builder.trained("mfu"), "percent", smooth=True),
        Plot("memory", "Memory", "held by the process, or most by tensors on the GPU", builder.trained("memory"),
             "bytes"),
        Plot("waiting_for_data", "Waiting for data", "share of the time", builder.trained("waiting_for_data"),
             "percent", smooth=True),
    ]  # fmt: skip
    plots += [
        Plot(f"{part}_by_rank", title, "seconds of a step", builder.by_rank(part), smooth=True)
        for part, title in zip(PARTS, ("Computing, by rank", "Waiting for data, by rank", "Collectives, by rank"),
                               strict=True)
    ]  # fmt: skip
    if not builder.trained("mfu"):
        plots.append(Plot("tflops", "TFLOP/s", "of the model", builder.trained("tflops"), smooth=True))
    names = tuple(run.name for run in runs)
    return Drawing(names, tables, tuple(plot for plot in plots if plot.lines), tuple(_resumed(run) for run in runs))


class _Builder:
    def __init__(self, runs: Sequence[Run], tables: Sequence[dict[str, Table]]) -> None:
        self.runs, self.tables = runs, tables
        self.several = len(runs) > 1

    def trained(self, curve: str) -> tuple[Line, ...]:
        return tuple(
            Line(at, "train", curve, run.name if self.several else curve.replace("_", " "), at)
            for at, run in enumerate(self.runs)
            if curve in self.tables[at]["train"].curves
        )

    def by_rank(self, part: str) -> tuple[Line, ...]:
        """Of a single run, whose ranks have the colours."""
        held = None if self.several else self.tables[0].get(_RANKS)
        names = [name for name in held.curves if name.startswith(f"{part} ")] if held else []
        return tuple(Line(0, _RANKS, name, f"rank {name.split()[1]}", at) for at, name in enumerate(names))

    def losses(self) -> tuple[Line, ...]:
        found = []
        for at, run in enumerate(self.runs):
            if "loss" in self.tables[at]["train"].curves:
                found.append(Line(at, "train", "loss", f"{run.name}, train" if self.several else "train", at))
            found += self._evaluated(at, "loss")
        return tuple(found)

    def scores(self, score: str) -> tuple[Line, ...]:
        return tuple(line for at in range(len(self.runs)) for line in self._evaluated(at, score))

    def _evaluated(self, at: int, score: str) -> list[Line]:
        lines: list[Line] = []
        for name in self.tables[at]:
            match = _NAMES.fullmatch(name)
            if match is None or match["score"] != score or match["split"] != "eval":
                continue
            label = "validation" + (f" {match['set'].replace('_', ' ')}" if match["set"] else "")
            label += f", {match['part']} keys" if match["part"] else ""
            if self.several:
                dash = DASHES[len(lines) % len(DASHES)]
                lines.append(Line(at, name, name, f"{self.runs[at].name}, {label}", at, True, dash))
            else:
                lines.append(Line(at, name, name, label, 1 + len(lines), True))
        return lines


def _tables(run: Run) -> dict[str, Table]:
    columns = run.history.train
    curves = {name: values for name, values in columns.items() if name not in ("step", "seconds", "tokens")}
    found = {"train": table(columns["step"], columns["seconds"], columns["tokens"], curves)}
    counted = np.isfinite(columns["tokens"])
    for score, curve in run.history.evaluations.items():
        if not _NAMES.fullmatch(score):
            continue
        tokens = np.full(len(curve.step), np.nan)
        if counted.any():  # evaluations do not count tokens; between two lines their number grows evenly
            steps, counts = (np.append(0.0, columns[name][counted]) for name in ("step", "tokens"))
            tokens = np.interp(curve.step, steps, counts)
        found[score] = table(curve.step, curve.seconds, tokens, {score: curve.values})
    if (by_rank := curves_by_rank(run.history, len(PALETTE))) is not None:
        found[_RANKS] = by_rank
    return {name: held for name, held in found.items() if name == "train" or held.curves}


def _resumed(run: Run) -> tuple[int, ...]:
    told = (e for e in run.history.events if e["event"] == "status" and e.get("state") == "training")
    steps = [event.get("step") for event in told]
    return tuple(sorted({step for step in steps if isinstance(step, int) and 0 < step <= run.step}))


def _is_wide(tables: Sequence[dict[str, Table]], curve: str) -> bool:
    for held in tables:
        if curve in held["train"].curves:
            values = held["train"].curves[curve].mean
            values = values[np.isfinite(values)]
            if len(values) and values.min() > 0 and values.max() > _WIDE * float(np.median(values)):
                return True
    return False
