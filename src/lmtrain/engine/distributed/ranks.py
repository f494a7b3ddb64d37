"""What the steps of each process go into, and which one the others wait for.

A step's time falls into three parts on every process: *computing* (with Python, the optimizer and logging), waiting
for *data*, and *collectives*: waiting in exchanges (:mod:`lmtrain.engine.distributed.exchanges`). Steps end together,
so a process that computes longer shows as collectives of all the others, and the least time that any process spends
in collectives is what the transfers cost by themselves. The figures are gathered where a line is logged, in one
exchange of a few numbers, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Literal

import torch
from accelerate.utils import gather, gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtrain.core.ranklog import host
from lmtrain.engine.distributed.exchanges import Exchanges
from lmtrain.engine.meter import Meter
from lmtrain.engine.speed.memory import memory_in_use

SLOWER: Final = 1.1
"""Times as long as the others that a process may compute without a word."""
LOST: Final = 1 - 1 / SLOWER
"""Of a step: less of it that all lose by such a process is not worth a word either."""
WAITING: Final = 0.05
"""Of a step, for data, by one process more than by the others."""
EXCHANGING: Final = 0.3
"""Of a step, for the transfers alone, on the process that waits least."""
MOST_TOLD: Final = 64
"""Processes of which an event holds the figures; of more those that take longest."""


@dataclass(frozen=True, slots=True)
class Held:
    """What holds all up: a ``rank`` that computes ``factor`` times as long as the others (``"computing"``), one that
    waits for data for a ``share`` of the step (``"data"``), or the transfers themselves (``"collectives"``, rank
    None)."""

    why: Literal["computing", "data", "collectives"]
    rank: int | None
    share: float
    factor: float = 0.0

    def told(self, hosts: Sequence[str]) -> str:
        """``rank 3 (host b) computes 1.4x as long as the others; all wait for it``."""
        if self.rank is None:
            return f"exchanging gradients takes {self.share:.0%} of a step, on every rank"
        who = named(self.rank, hosts)
        if self.why == "data":
            return f"{who} waits for data {self.share:.0%} of the time; all wait for it"
        return f"{who} computes {self.factor:.2g}x as long as the others; all wait for it"


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a step, by rank, as the mean over the ``steps`` up to ``step``; ``memory`` in bytes.

    ``collectives`` is None where they cannot be told from computing (sharded models): that holds both then.
    """

    step: int
    steps: int
    seconds: float
    computing: tuple[float, ...]
    data: tuple[float, ...]
    collectives: tuple[float, ...] | None
    memory: tuple[int, ...]

    @classmethod
    def of(cls, step: int, rows: Sequence[Sequence[float]], *, told_apart: bool) -> Times:
        """From each rank's (steps, seconds, waited for data, waited in collectives, memory)."""
        steps = max(1, round(rows[0][0]))
        data = tuple(row[2] / steps for row in rows)
        collectives = tuple(row[3] / steps for row in rows)
        rest = tuple(max(0.0, (row[1] - row[2] - row[3]) / steps) for row in rows)
        if not told_apart:
            rest = tuple(map(sum, zip(rest, collectives, strict=True)))
        return cls(step, steps, max(row[1] for row in rows) / steps, rest, data, collectives if told_apart else None,
                   tuple(int(row[4]) for row in rows))  # fmt: skip

    @property
    def held(self) -> Held | None:
        """What holds all up, where it is worth a word."""
        if self.collectives is None or self.seconds <= 0:
            return None
        found = [held for held in (self._computing(), self._data()) if held is not None]
        if found:
            return max(found, key=lambda held: held.share)
        transfers = min(self.collectives) / self.seconds
        return Held("collectives", None, transfers) if transfers > EXCHANGING else None

    def _computing(self) -> Held | None:
        rank, usual = _furthest(self.computing)
        excess, factor = (self.computing[rank] - usual) / self.seconds, self.computing[rank] / max(usual, 1e-9)
        return Held("computing", rank, excess, factor) if factor > SLOWER and excess > LOST else None

    def _data(self) -> Held | None:
        rank, usual = _furthest(self.data)
        if (self.data[rank] - usual) / self.seconds <= WAITING:  # where all wait, the line of the step says it
            return None
        return Held("data", rank, self.data[rank] / self.seconds)

    def as_event(self, hosts: Sequence[str]) -> dict[str, Any]:
        """For ``metrics.jsonl``: columns over ``rank``, seconds of a step; of many processes those that take
        longest."""
        world, held = len(self.computing), self.held
        busy = [c + d for c, d in zip(self.computing, self.data, strict=True)]
        told = sorted(sorted(range(world), key=lambda rank: -busy[rank])[:MOST_TOLD])
        columns: dict[str, Sequence[Any] | None] = {
            "computing": self.computing, "data": self.data, "collectives": self.collectives, "memory": self.memory,
        }  # fmt: skip
        event: dict[str, Any] = {
            "step": self.step, "steps": self.steps, "processes": world, "seconds": _short(self.seconds), "rank": told,
            **{name: [_short(values[rank]) for rank in told] for name, values in columns.items() if values is not None},
        }  # fmt: skip
        if len(set(hosts)) > 1:
            event["host"] = [hosts[rank] for rank in told]
        if self.collectives is not None:
            event["transfers"] = _short(min(self.collectives))
        if held is not None:
            event["held_up_by"] = {"why": held.why, "rank": held.rank, "share": _short(held.share)}
            if held.factor:
                event["held_up_by"]["times"] = _short(held.factor)
        return event


class Ranks(TrainerCallback):
    """Measures and gathers the times of all processes; with one process it does nothing.

    ``newest`` are those of the last log line; ``line`` is what is to be said of them: what held all up in two in a row,
    once. ``measures`` False leaves everything out.
    """

    measures = True

    def __init__(
        self, meter: Meter, device: torch.device, world: int, memory: Callable[[torch.device], int] = memory_in_use
    ) -> None:
        self.exchanges = Exchanges(device)
        self.hosts: tuple[str, ...] = ()
        self.newest: Times | None = None
        self.line: str | None = None
        self._meter, self._device, self.world, self._memory = meter, device, world, memory
        self._mark = (0, 0.0, 0.0, 0.0)
        self._whole: list[list[float]] = []
        self._told_apart = True
        self._before: tuple[str, int | None] | None = None
        self._said: tuple[str, int | None] | None = None

    @property
    def are_measured(self) -> bool:
        return self.measures and self.world > 1

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._whole, self.newest, self._before, self._said = [], None, None, None
        if self.are_measured:
            self.hosts = tuple(gather_object([host()]))
            self._mark = (state.global_step, 0.0, 0.0, self.exchanges.seconds)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.lap(state, told_apart=self._told_apart)
        self.exchanges.leave()

    def lap(self, state: TrainerState, *, told_apart: bool) -> dict[str, Any]:
        """Gather the times since the last call. All processes call it after the same step.

        Returns what a log line says of them: ``waiting_for_data``, of the process that waits longest, and the
        ``memory`` of the one that holds most, with its number (``memory_rank``).
        """
        if not self.are_measured or state.global_step <= self._mark[0]:
            return {}
        now = (state.global_step, self._meter.seconds, self._meter.waited, self.exchanges.seconds)
        mine = [later - earlier for later, earlier in zip(now, self._mark, strict=True)]
        self._mark, self._told_apart = now, told_apart
        mine.append(self._memory(self._device))
        everyones = gather(torch.tensor([mine], dtype=torch.float64, device=self._device))
        rows: list[list[float]] = everyones.tolist()
        self._whole = [_added(*both) for both in zip(self._whole, rows, strict=True)] if self._whole else rows
        self.newest = Times.of(state.global_step, rows, told_apart=told_apart)
        self._judge(self.newest.held)
        return {"waiting_for_data": _waiting(self.newest), **_memory(self.newest)}

    def _judge(self, held: Held | None) -> None:
        now = None if held is None else (held.why, held.rank)
        self.line = None
        if held is not None and now == self._before and now != self._said:
            self.line, self._said = held.told(self.hosts), now
        self._before = now

    def whole(self) -> dict[str, Any]:
        """From when this process began to train to the end of it, as results name it: ``train_waiting_for_data`` and
        memory as :meth:`lap` has them; ``train_collectives``: the share of the time spent in exchanges, by the median
        of the processes; ``train_held_up_by_rank`` where one holds all up."""
        if not self._whole:
            return {}
        times = Times.of(0, self._whole, told_apart=self._told_apart)
        found = {"waiting_for_data": _waiting(times), **_memory(times)}
        if times.collectives is not None and times.seconds > 0:
            found["collectives"] = round(median(times.collectives) / times.seconds, 4)
        if times.held is not None and times.held.rank is not None:
            found["held_up_by_rank"] = times.held.rank
        return {f"train_{name}": value for name, value in found.items()}


def named(rank: int, hosts: Sequence[str]) -> str:
    """``rank 3``, and on which host, where there are several."""
    return f"rank {rank} (host {hosts[rank]})" if len(set(hosts)) > 1 else f"rank {rank}"


def _furthest(values: Sequence[float]) -> tuple[int, float]:
    """(which of ``values`` is the greatest, the median of the others)."""
    at = max(range(len(values)), key=values.__getitem__)
    return at, median([value for other, value in enumerate(values) if other != at] or [values[at]])


def _added(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Sums, but of memory the greater."""
    return [*(a + b for a, b in zip(one[:-1], other[:-1], strict=True)), max(one[-1], other[-1])]


def _waiting(times: Times) -> float:
    return round(max(times.data) / times.seconds, 4) if times.seconds > 0 else 0.0


def _memory(times: Times) -> dict[str, int]:
    most = max(times.memory)
    return {"memory": most, "memory_rank": times.memory.index(most)}


def _short(value: float) -> float:
    return float(f"{value:.4g}") if isinstance(value, float) else value
