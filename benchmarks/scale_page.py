"""docs/scale.md, from recorded measurements: ``python benchmarks/scale_page.py benchmarks/scale.json`` (make scale).

The same record gives the same page: the simulation is seeded. The sentences are those of ``scale_page.template``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lmtrain.config.commands.outlook import OutlookOptions
from lmtrain.core.console import amount, duration
from lmtrain.rehearsal.scale.exchange import Step
from lmtrain.rehearsal.scale.failures import Failures, Saving
from lmtrain.rehearsal.scale.network import LATENCY, NODE_LATENCY, Link, Network
from lmtrain.rehearsal.scale.outlook import HOUR, MTBF_HOURS, Outlook, Run, outlook, play_through
from lmtrain.rehearsal.scale.preparation import preparation
from lmtrain.rehearsal.scale.saves import Storage, sharded, whole

TEMPLATE = Path(__file__).with_suffix(".template")
_TOKENS = (1e9, 1e10, 1e11, 1e12)
_DEVICES = (1, 8, 64, 1024)
_A_STEP = 16_384  # tokens of one device
_SAVED = 12  # bytes a parameter of a checkpoint: an fp32 weight and AdamW's two moments (Rajbhandari et al. 2020, 3.1)
_STATE = 16  # the same with gradients
_MEMORY = 80e9  # bytes of an H100
_WEIBULL_SHAPE = 0.7
_DELIVERED = 400e12  # floating-point operations a second
_DEFAULTS = OutlookOptions()


class Given(NamedTuple):
    """A figure of hardware that nobody measured here: its value in words, and where it is from.

    Rates of links are what the maker states for one device and one direction. Exchanges reach somewhat less of it; who
    has measured theirs (``all_reduce_perf`` of nccl-tests prints it as *busbw*) gives that instead.
    """

    name: str
    value: str
    source: str


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
        return TEMPLATE.read_text(encoding="utf-8").format(
            machine=self.record["machine"], tokens=_A_STEP, origins=self._origins(), gloo=self._gloo(),
            preparing=self._preparing(), steps=self._steps(), checkpoints=self._checkpoints(),
            failures=self._failures(), runs=self._runs(),
        )  # fmt: skip

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
        return _table(("figure", "value", "from"), [*measured, *_given()])

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
            size = model.parameters * _SAVED
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
                bursts = play_through(found.work, saving, Failures(found.mtbf, _WEIBULL_SHAPE))
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
        size = model.parameters * _SAVED
        run = Run(
            _step(model), steps, size, model.is_sharded, background=not model.is_sharded,
            start=self.record["start_seconds"],
        )  # fmt: skip
        return outlook(run, _network(devices), self.storage, mtbf=MTBF_HOURS * HOUR)


def _given() -> list[Given]:
    return [
        Given("devices of a machine (`--devices_per_node`)", f"{_DEFAULTS.devices_per_node} devices",
              "NVIDIA DGX H100: eight GPUs in a machine"),
        Given("a link inside a machine (`--node_link_gbps`)", f"{_DEFAULTS.node_link_gbps:,g} Gbit/s",
              "NVLink 4 of an H100, one direction: 450 of the 900 GB/s that NVIDIA states for both"),
        Given("a link between machines (`--link_gbps`)", f"{_DEFAULTS.link_gbps:,g} Gbit/s",
              "NVIDIA DGX H100: a 400 Gbit/s adapter (ConnectX-7) for each GPU"),
        Given("a message inside a machine", _seconds(NODE_LATENCY),
              "assumed: some microseconds to start a copy on a GPU and signal its neighbour"),
        Given("a message between machines", _seconds(LATENCY),
              "assumed: two such starts and a switch or two between"),
        Given("what a device delivers (`--device_tflops`)", f"{_DELIVERED / 1e12:g} TFLOP/s",
              "what a GPU delivered in the training of Llama 3 405B on 8,192 to 16,384 H100s, 38 to 43 % of its peak "
              "(Grattafiori et al. 2024, table 4: 380 to 430)"),
        Given("time between failures of a device (`--mtbf`)", f"{MTBF_HOURS:,g} h",
              "419 unexpected interruptions in 54 days of 16,384 GPUs (Grattafiori et al. 2024, section 3.3.4): "
              "16,384 × 54 × 24 h / 419 = 50,700 h a GPU"),
        Given("failures in bursts", f"{_WEIBULL_SHAPE:g}",
              "times between failures of computers in use: Weibull of shape 0.7 to 0.8 (Schroeder & Gibson 2006)"),
    ]  # fmt: skip


def _step(model: Model) -> Step:
    """Six operations a parameter and token, two of them forward (Kaplan et al. 2020); attention and update left out."""
    seconds = 6 * model.parameters * _A_STEP / _DELIVERED
    return Step(
        seconds / 3, seconds * 2 / 3, 0.0, gradients=4 * model.parameters, weights=2 * model.parameters,
        sums=2 * model.parameters, layers=model.layers,
    )  # fmt: skip


def _network(devices: int) -> Network:
    inside, between = Link.of(_DEFAULTS.node_link_gbps, NODE_LATENCY), Link.of(_DEFAULTS.link_gbps, LATENCY)
    return Network(devices, _DEFAULTS.devices_per_node, inside, between)


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
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


if __name__ == "__main__":
    print(Page(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).text(), end="")
