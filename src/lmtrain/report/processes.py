"""The part of the page that tells what each process did, and which one the others waited for."""

from __future__ import annotations

import math
from statistics import median
from typing import Final

from lmtrain.core.console import amount
from lmtrain.report.accounts import named
from lmtrain.report.log import History
from lmtrain.report.markup import Markup, at_most, element, table
from lmtrain.report.ranks import PARTS, count_of, held_up_by, in_collectives, processes_of
from lmtrain.report.reading import Run

_NAMES: Final = {"computing": "computing", "data": "waiting for data", "collectives": "collectives"}


def processes(run: Run, several: bool) -> Markup | None:
    """A table of the processes, and in words what held all of them up; nothing of a run in one process."""
    told = processes_of(run.history)
    if not told:
        return None
    total = count_of(run.history)
    notes = [f"{total:,} processes; the time of a step, as the mean over the run."]
    if len(told) < total:
        notes.append(f"The log tells of {len(told)}, those that took longest.")
    parts = [part for part in PARTS if any(part in process.seconds for process in told)]
    if "collectives" not in parts:
        notes.append("Computing holds the exchanges too, which cannot be told apart in sharded models.")
    slow = {rank for _, rank, _ in held_up_by(run.history)}
    hosts = any(process.host for process in told)
    head = element(
        "tr",
        element("th", "rank", class_="number"),
        element("th", "host") if hosts else None,
        *(element("th", _NAMES[part], class_="number") for part in parts),
        element("th", "memory, most", class_="number"),
    )
    body = [
        element(
            "tr",
            element("th", str(process.rank), scope="row", class_="number"),
            element("td", process.host) if hosts else None,
            *(element("td", _seconds(process.of_a_step(part)), class_="number") for part in parts),
            element("td", amount(process.memory, "B") if math.isfinite(process.memory) else "—", class_="number"),
            class_="notable" if process.rank in slow else None,
        )
        for process in told
    ]
    return element(
        "div",
        named(run, several),
        element("p", " ".join(notes), class_="note"),
        *(element("p", line) for line in in_words(run.history)),
        table([head], at_most(body), "processes"),
    )


def in_words(history: History) -> list[str]:
    """``Rank 3 computes 1.4x as long as the others and all wait for it, in 45 of 60 log lines.``"""
    told = processes_of(history)
    by_rank = {process.rank: process for process in told}
    lines = []
    for why, rank, times in held_up_by(history):
        often = f"in {times:,} of {len(history.ranks):,} log lines"
        if why == "collectives":
            lines.append(f"Exchanging gradients takes {in_collectives(history):.0%} of a step on every rank, {often}.")
        elif rank in by_rank and why == "computing":
            others = median([process.of_a_step(why) for process in told if process.rank != rank] or [math.nan])
            factor = by_rank[rank].of_a_step(why) / others if others > 0 else math.nan
            lines.append(f"Rank {rank} computes {factor:.2g}x as long as the others and all wait for it, {often}.")
        elif rank in by_rank and why == "data":
            lines.append(
                f"Rank {rank} waits for data {_seconds(by_rank[rank].of_a_step(why))} of a step and all wait for it, "
                f"{often}."
            )
    return lines


def _seconds(value: float) -> str:
    return "—" if not math.isfinite(value) else f"{value * 1000:,.1f} ms" if value < 1 else f"{value:,.2f} s"
