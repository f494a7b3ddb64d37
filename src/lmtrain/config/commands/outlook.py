"""Options of ``lmtrain check`` about a run on many devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmtrain.config.about import option


@dataclass
class OutlookOptions:
    """The machines that a run is going to have; where each default is from: docs/scale.md."""

    title: ClassVar[str] = "Many devices"

    devices: int | None = option(
        None,
        "Plan for so many devices (GPUs, or processes of a CPU): how often to save, what failures cost, what a step's "
        "exchange takes.",
        metavar="N",
        at_least=1,
        shown_default="no such plan; with --mtbf as many as run now",
    )
    mtbf: float | None = option(
        None,
        "Mean time between failures of one device with its share of machine and network: devices × hours of a past run "
        "/ its failures. Of N devices together it is N times shorter.",
        unit="hours",
        metavar="HOURS",
        above=0,
        shown_default="50000, that of an H100 in the training of Llama 3",
    )
    devices_per_node: int = option(8, "Devices of one machine.", metavar="N", at_least=1)
    link_gbps: float = option(
        400.0, "What a device sends to other machines, one direction.", unit="Gbit/s", metavar="RATE", above=0
    )
    node_link_gbps: float = option(
        3600.0, "What a device sends to those beside it, one direction (NVLink 4).", unit="Gbit/s", metavar="RATE",
        above=0,
    )  # fmt: skip
    device_tflops: float | None = option(
        None,
        "What a device delivers in a step: its peak times its utilisation.",
        unit="TFLOP/s",
        metavar="RATE",
        above=0,
        shown_default="as measured here",
    )
    disk_mbps: float | None = option(
        None,
        "What the disk of one machine takes, flushed.",
        unit="MB/s",
        metavar="RATE",
        above=0,
        shown_default="as measured here",
    )
    store_mbps: float | None = option(
        None,
        "What all machines together can write, where they share a file system or an object store.",
        unit="MB/s",
        metavar="RATE",
        above=0,
        shown_default="each machine has a disk of its own",
    )
    restart_minutes: float | None = option(
        None,
        "From a failure until the programs run again; reading the checkpoint comes on top.",
        unit="minutes",
        metavar="MINUTES",
        at_least=0,
        shown_default="what starting took here",
    )

    @property
    def asks(self) -> bool:
        """Whether a plan for other machines is wanted."""
        return self.devices is not None or self.mtbf is not None
