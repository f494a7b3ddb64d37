"""docs/scale.md, from recorded measurements: ``python -m lmtrain.rehearsal.scale.page benchmarks/scale.json``.

The same record gives the same page: the simulation is seeded. ``make scale`` writes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmtrain.core.console import amount, duration
from lmtrain.rehearsal.scale import prose, reference
from lmtrain.rehearsal.scale.exchange import Step
from lmtrain.rehearsal.scale.failures import Failures, Saving
from lmtrain.rehearsal.scale.network import Link, Network
from lmtrain.rehearsal.scale.outlook import HOUR, Outlook, Run, outlook, play_through
from lmtrain.rehearsal.scale.preparation import preparation
from lmtrain.rehearsal.scale.saves import ADAM_BYTES, Storage, sharded, whole

_TOKENS = (1e9, 1e10, 1e11, 1e12)
_DEVICES = (1, 8, 64, 1024)
_A_STEP = 16_384  # tokens of one device
_STATE = 16  # bytes a parameter: weights, gradients, Adam's two moments, all fp32
_MEMORY = 80e9  # bytes of an H100
_WHY_16 = "weights, gradients and AdamW's state in fp32, before any activation"


@dataclass(frozen=True, slots=True)
class Model:
    """A size to plan for. ``is_sharded``: its state does not fit into one device."""

    name: str
    parameters: float
    layers: int

    @property
    def is_sharded(self) -> bool:
        return self.parameters * _STATE > _MEMORY

    def fits(self, devices: int) -> bool:
        """Whether a part of its state does."""
        return self.parameters * _STATE / devices < _MEMORY


_MODELS = (Model("124 M", 124e6, 12), Model("1 B", 1e9, 16), Model("7 B", 7e9, 32))


class Page:
    """The page of one ``record`` (benchmarks/scale.json)."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        disk = record["disk_mbps"] * 1e6
        self.storage = Storage(disk, record["copy_mbps"] * 1e6)

    def text(self) -> str:
        """All of it, as Markdown."""
        parts = [
            prose.HEAD.format(machine=self.record["machine"]),
            *("## Where the figures are from\n", self._origins()),
            *("## The formula of an exchange, tried\n", self._gloo()),
            *("## Preparing\n", prose.PREPARING, self._preparing()),
            *("## A step\n", prose.STEP.format(tokens=_A_STEP, why=_WHY_16), self._steps()),
            *("## Checkpoints\n", prose.CHECKPOINTS, self._checkpoints()),
            *("## Failures\n", prose.FAILURES, self._failures()),
            *("## A whole run\n", prose.RUNS, self._runs()),
            prose.TAIL,
        ]
        return "\n".join(parts)

    def _origins(self) -> str:
        record = self.record
        measured = (
            ("text tokenized and stored", f"{record['prepare_mbps']:,.1f} MB/s",
             f"measured: {record['tokenizer']}, Python's standard library, {record['prepare_with']}"),
            ("bytes a token", f"{record['bytes_per_token']:.2f}", "measured: the same"),
            ("a disk, hashed and flushed", f"{record['disk_mbps']:,.0f} MB/s", "measured: SHA-256 and fsync, one file"),
            ("main memory, copied", f"{record['copy_mbps']:,.0f} MB/s", "measured: torch, 64 MB"),
            ("a program started", f"{record['start_seconds']:.1f} s",
             "measured: `lmtrain check` from its start to model and data in memory"),
        )  # fmt: skip
        named = (
            ("devices of a machine (`--devices_per_node`)", reference.DEVICES_PER_NODE),
            ("a link inside a machine (`--node_link_gbps`)", reference.NODE_LINK_GBPS),
            ("a link between machines (`--link_gbps`)", reference.LINK_GBPS),
            ("a message inside a machine", reference.NODE_LATENCY),
            ("a message between machines", reference.LATENCY),
            ("what a device delivers (`--device_tflops`)", reference.DEVICE_TFLOPS),
            ("time between failures of a device (`--mtbf`)", reference.MTBF_HOURS),
            ("failures in bursts", reference.WEIBULL_SHAPE),
        )
        rows = [*measured, *((name, _figure(figure), figure.source) for name, figure in named)]
        return _table(("figure", "value", "from"), rows)

    def _gloo(self) -> str:
        tried = self.record["gloo"]
        link = Link(tried["rate"], tried["latency"])
        pair = Network(2, 2, link, link)
        rows = [
            (
                amount(size, "B"),
                _seconds(taken),
                _seconds(pair.all_reduce(size)),
                f"{pair.all_reduce(size) / taken:.2f}",
            )
            for size, taken in zip(tried["bytes"], tried["seconds"], strict=True)
        ]
        return (
            f"Two processes on one machine, gloo, all-reduce of fp32. A link of {amount(tried['rate'], 'B')}/s is what "
            f"the largest tensor adds to the smallest, and {_seconds(tried['latency'])} a message the median of the "
            "smaller half; the others are predicted.\n\n"
            f"{_table(('tensor', 'measured', 'formula', 'formula / measured'), rows)}"
        )

    def _preparing(self) -> str:
        rows = []
        for tokens in _TOKENS:
            made = [
                preparation(
                    tokens, rate=self.record["prepare_mbps"] * 1e6, bytes_per_token=self.record["bytes_per_token"],
                    vocabulary=50_257, machines=machines,
                )
                for machines in (1, 8, 128)
            ]  # fmt: skip
            times = (_seconds(one.seconds) for one in made)
            rows.append((_count(tokens), amount(made[0].text, "B"), amount(made[0].store, "B"), *times))
        return _table(("tokens", "text", "store", "1 machine", "8 machines", "128 machines"), rows)

    def _steps(self) -> str:
        rows = []
        for model in _MODELS:
            for devices in _DEVICES:
                found = self._outlook(model, devices, steps=1)
                cells = [
                    f"{amount(way.sent, 'B')} · {_seconds(way.seconds)} · {way.share:.1%}" if fits else "does not fit"
                    for way, fits in ((found.ddp, not model.is_sharded), (found.fsdp2, model.fits(devices)))
                ]
                rows.append((model.name, f"{devices:,}", _seconds(_step(model).seconds), *cells))
        return _table(
            ("model", "devices", "computing", "DDP: sent · takes · waited", "FSDP2: sent · takes · waited"), rows
        )

    def _checkpoints(self) -> str:
        rows = []
        for model in _MODELS:
            size = model.parameters * ADAM_BYTES
            one = whole(size, self.storage)
            parts = (sharded(size, self.storage, d, _network(d).nodes).seconds for d in (8, 64, 1024))
            rows.append(
                (model.name, amount(size, "B"), _seconds(one.pause), _seconds(one.seconds), *map(_seconds, parts))
            )
        heads = ("model", "bytes", "copied by one", "written by one", "8 devices", "64 devices", "1,024 devices")
        return _table(heads, rows)

    def _failures(self) -> str:
        rows = []
        for model in _MODELS:
            for devices in _DEVICES:
                if not model.fits(devices):
                    continue
                found = self._outlook(model, devices, steps=10**7)
                saving = Saving(found.interval, found.save.pause, found.save.write, found.restart)
                bursts = play_through(found.work, saving, Failures(found.mtbf, reference.WEIBULL_SHAPE.value))
                rows.append(
                    (
                        model.name, f"{devices:,}", _seconds(found.mtbf), _seconds(found.save.pause),
                        _seconds(found.restart), _seconds(found.interval),
                        *(f"{played.lost:.2%}" if played else "all" for played in (found.played, bursts)),
                    )
                )  # fmt: skip
        heads = ("model", "devices", "a failure in", "pause", "restart", "save every", "lost", "lost, in bursts")
        return _table(heads, rows)

    def _runs(self) -> str:
        rows = []
        for model in _MODELS:
            for tokens in _TOKENS:
                cells = []
                for devices in _DEVICES:
                    if not model.fits(devices):
                        cells.append("does not fit")
                        continue
                    steps = max(1, round(tokens / _A_STEP / devices))
                    found = self._outlook(model, devices, steps=steps)
                    wall = found.played.wall if found.played else found.work
                    cells.append(f"{_seconds(wall)} · {_few(found.failures)}")
                rows.append((model.name, _count(tokens), *cells))
        heads = ("model", "tokens", *(f"{d:,} device{'s' if d > 1 else ''}: time · failures" for d in _DEVICES))
        return _table(heads, rows)

    def _outlook(self, model: Model, devices: int, steps: int) -> Outlook:
        size = model.parameters * ADAM_BYTES
        run = Run(
            _step(model), steps, size, model.is_sharded, background=not model.is_sharded,
            start=self.record["start_seconds"],
        )  # fmt: skip
        return outlook(run, _network(devices), self.storage, mtbf=reference.MTBF_HOURS.value * HOUR)


def _step(model: Model) -> Step:
    """Six operations a parameter and token, two of them forward (Kaplan et al. 2020); attention and update left out."""
    seconds = 6 * model.parameters * _A_STEP / (reference.DEVICE_TFLOPS.value * 1e12)
    return Step(
        seconds / 3, seconds * 2 / 3, 0.0, gradients=4 * model.parameters, weights=2 * model.parameters,
        sums=2 * model.parameters, layers=model.layers,
    )  # fmt: skip


def _network(devices: int) -> Network:
    return Network(
        devices,
        int(reference.DEVICES_PER_NODE.value),
        Link.of(reference.NODE_LINK_GBPS.value, reference.NODE_LATENCY.value),
        Link.of(reference.LINK_GBPS.value, reference.LATENCY.value),
    )


def _figure(figure: reference.Figure) -> str:
    if figure.unit == "s":
        return _seconds(figure.value)
    return f"{figure.value:,g} {figure.unit}".strip()


def _seconds(value: float) -> str:
    if value <= 0:
        return "0"
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 10 * HOUR:
        return duration(value)
    if value < 72 * HOUR:
        return f"{value / HOUR:.1f} h"
    days = value / 24 / HOUR
    return f"{days:,.1f} days" if days < 1000 else f"{days / 365.25:,.1f} years"


def _few(number: float) -> str:
    return f"{number:.2g}" if number >= 0.01 else "< 0.01"


def _count(number: float) -> str:
    for size, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:g} {name}"
    return f"{number:g}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


if __name__ == "__main__":
    print(Page(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).text(), end="")
