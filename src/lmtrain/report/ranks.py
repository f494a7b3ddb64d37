"""The times of each process of a run, as its log tells them: see :mod:`lmtrain.engine.distributed.ranks`."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import numpy as np

from lmtrain.report.log import Column, History, listed, mapping, number, whole
from lmtrain.report.series import Table
from lmtrain.report.series import table as curves_of

PARTS: Final = ("computing", "data", "collectives")


@dataclass(slots=True)
class Process:
    """One rank over all that was logged: ``seconds`` of the steps told of it, by part, and how many ``steps``;
    ``memory`` the most in bytes."""

    rank: int
    host: str = ""
    steps: float = 0.0
    memory: float = math.nan
    seconds: dict[str, float] = field(default_factory=dict)

    def of_a_step(self, part: str) -> float:
        """Seconds; nan where it was not told."""
        return self.seconds.get(part, math.nan) / self.steps if self.steps else math.nan


def processes_of(history: History) -> list[Process]:
    """By rank; of very many only those that the log tells, which take longest."""
    found: dict[int, Process] = {}
    for event in history.ranks:
        steps = max(1, whole(event.get("steps")))
        columns = {part: listed(event.get(part)) for part in (*PARTS, "memory", "host")}
        for at, rank in enumerate(listed(event.get("rank"))):
            process = found.setdefault(whole(rank), Process(whole(rank)))
            process.steps += steps
            for part in PARTS:
                value = number(columns[part][at]) if at < len(columns[part]) else math.nan
                if math.isfinite(value):
                    process.seconds[part] = process.seconds.get(part, 0.0) + value * steps
            if at < len(columns["memory"]):
                process.memory = float(np.fmax(process.memory, number(columns["memory"][at])))
            if at < len(columns["host"]):
                process.host = str(columns["host"][at])
    return [found[rank] for rank in sorted(found)]


def count_of(history: History) -> int:
    """How many processes the run had last; 1 where the log tells of none."""
    return max(1, whole(history.ranks[-1].get("processes"))) if history.ranks else 1


def in_collectives(history: History) -> float:
    """The share of the time that the median process spent in exchanges; nan where the log does not tell."""
    spent = total = 0.0
    for event in history.ranks:
        values = [number(value) for value in listed(event.get("collectives"))]
        known, seconds = [value for value in values if math.isfinite(value)], number(event.get("seconds"))
        if known and math.isfinite(seconds):
            steps = max(1, whole(event.get("steps")))
            spent, total = spent + median(known) * steps, total + seconds * steps
    return spent / total if total > 0 else math.nan


def most_memory(history: History) -> tuple[float, int] | None:
    """(bytes, the rank that held them)."""
    known = [(process.memory, process.rank) for process in processes_of(history) if math.isfinite(process.memory)]
    return max(known, key=lambda held: held[0]) if known else None


def curves_by_rank(history: History, most: int) -> Table | None:
    """Seconds of a step by part and rank (``computing 3``): of ``most`` ranks at most, those that compute longest."""
    told = processes_of(history)
    if not told:
        return None
    longest = sorted(told, key=lambda process: -process.seconds.get("computing", 0.0) / process.steps)[:most]
    chosen = sorted(process.rank for process in longest)
    columns: dict[str, Column] = {}
    for part in PARTS:
        for rank in chosen:
            columns[f"{part} {rank}"] = np.array([_value(event, part, rank) for event in history.ranks])
    steps = np.array([number(event.get("step")) for event in history.ranks])
    seconds = np.array([number(event.get("seconds_worked")) for event in history.ranks])
    train = history.train
    known = np.isfinite(train["tokens"])
    tokens = np.interp(steps, train["step"][known], train["tokens"][known]) if known.any() else steps * math.nan
    return curves_of(steps, seconds, tokens, columns)


def _value(event: dict[str, Any], part: str, rank: int) -> float:
    ranks, values = listed(event.get("rank")), listed(event.get(part))
    at = ranks.index(rank) if rank in ranks else -1
    return number(values[at]) if 0 <= at < len(values) else math.nan


def held_up_by(history: History) -> list[tuple[str, int | None, int]]:
    """(what takes the time, the rank that does so or None, in how many log lines it held all up), the most frequent
    first; what was so in fewer than a tenth is left out."""
    told = [(one.get("why"), one.get("rank")) for event in history.ranks if (one := mapping(event.get("held_up_by")))]
    found = Counter((str(why), rank if isinstance(rank, int) else None) for why, rank in told)
    return [(why, rank, times) for (why, rank), times in found.most_common() if times * 10 >= len(history.ranks)]
