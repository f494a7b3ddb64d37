"""A run on so many devices, from what was measured of one: its steps, its saves, its failures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from lmtrain.rehearsal.scale.exchange import Exchange, Step, ddp, fsdp2
from lmtrain.rehearsal.scale.failures import Failures, Played, Saving, expect
from lmtrain.rehearsal.scale.intervals import daly
from lmtrain.rehearsal.scale.network import Network
from lmtrain.rehearsal.scale.preparation import Preparation
from lmtrain.rehearsal.scale.saves import Save, Storage, restart, sharded, whole

HOUR = 3600.0
MTBF_HOURS = 50_000.0  # of a device where nobody says otherwise; where that is from: docs/scale.md
_PLAYED = 4000  # failures that are played through for a mean
_RUNS = 1000  # at most, of a run that seldom fails


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of a run: ``step`` of one device and how many ``steps``, bytes of a ``checkpoint``, whether it
    ``is_sharded`` (FSDP) and saves in the ``background``, and ``start`` seconds until its programs run again."""

    step: Step
    steps: int
    checkpoint: float
    is_sharded: bool
    background: bool
    start: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """Seconds throughout. ``mtbf`` is the mean time between failures of all devices together, ``interval`` the work
    between two saves, every ``save_steps`` steps; ``played`` the run with its failures in the mean, None when it would
    not get to its end. ``step`` holds the exchange of the way it runs, ``ddp`` and ``fsdp2`` those of both ways.
    """

    devices: int
    nodes: int
    steps: int
    is_sharded: bool
    ddp: Exchange
    fsdp2: Exchange
    save: Save
    restart: float
    mtbf: float
    interval: float
    save_steps: int
    failures: float
    played: Played | None
    preparation: Preparation | None = None

    @property
    def step(self) -> Exchange:
        return self.fsdp2 if self.is_sharded else self.ddp

    @property
    def work(self) -> float:
        """Of all steps, without saving and failing."""
        return self.steps * self.step.step

    @property
    def lost(self) -> float | None:
        """Seconds that saving and failures add."""
        return None if self.played is None else self.played.wall - self.played.work

    def as_dict(self) -> dict[str, Any]:
        shares = {"lost_seconds": self.lost, "lost_share": self.played.lost if self.played else None}
        return {**asdict(self), **shares}


def outlook(
    run: Run, network: Network, storage: Storage, *, mtbf: float, preparation: Preparation | None = None
) -> Outlook:
    """``mtbf``: mean seconds between failures of *one* device; that of all is so many times shorter.

    The interval is Daly's for the pause of a save, but no shorter than writing takes, nor than a step, nor longer than
    the run.
    """
    devices, nodes = network.devices, network.nodes
    exchanges = ddp(run.step, network), fsdp2(run.step, network)
    step = exchanges[run.is_sharded].step
    if run.is_sharded:
        save = sharded(run.checkpoint, storage, devices, nodes, background=run.background)
    else:
        save = whole(run.checkpoint, storage, background=run.background)
    back = restart(run.checkpoint, storage, nodes, start=run.start, is_sharded=run.is_sharded)
    together = mtbf / devices
    best = daly(save.pause, together)
    save_steps = min(run.steps, max(1, math.ceil(save.write / step), round(best / step)))
    interval = save_steps * step
    work = run.steps * step
    played = play_through(work, Saving(interval, save.pause, save.write, back), Failures(together))
    failures = (played.wall if played else work) / together
    return Outlook(
        devices, nodes, run.steps, run.is_sharded, *exchanges, save, back, together, interval, save_steps, failures,
        played, preparation,
    )  # fmt: skip


def play_through(work: float, saving: Saving, failures: Failures, *, seed: int = 0) -> Played | None:
    """The mean of a run of ``work`` seconds, from about as many simulated failures whatever its length.

    A run with more is played for a part, whose losses go with its length; one with few is played often. None when it
    would not get to its end.
    """
    part = min(work, max(_PLAYED * failures.mtbf, saving.interval))
    part = work if part == work else math.ceil(part / saving.interval) * saving.interval
    runs = max(1, min(_RUNS, math.ceil(_PLAYED * failures.mtbf / part)))
    mean = expect(part, saving, failures, runs=runs, seed=seed)
    if mean is None:
        return None
    return Played(
        *(work / part * value for value in (mean.work, mean.pauses, mean.again, mean.restarts, mean.failures))
    )
