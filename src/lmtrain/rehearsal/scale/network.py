"""How long processes take to exchange tensors, by the bytes they move and the messages they wait for.

A message of *b* bytes takes ``latency + b / rate``. A ring of *n* moves ``(n − 1)/n`` of the tensor over each link to
scatter sums and as much to gather them, which is the least possible (Patarasuk & Yuan 2009, "Bandwidth optimal
all-reduce algorithms for clusters of workstations"); an all-reduce is both. It waits ``n − 1`` times for a neighbour;
halving and doubling move as much with ``⌈log₂ n⌉`` waits (Thakur, Rabenseifner & Gropp 2005), and trees need about as
few (Sanders, Speck & Träff 2009), so libraries use those between many machines. Here: a ring inside a machine, halving
and doubling between machines.

Between machines with *g* devices each, every device first sums a *g*-th of the tensor with those beside it, then
exchanges that part with its counterparts in the other machines over its own adapter, then gathers inside. The stages
are added up; a library that runs them as a pipeline is faster by at most the shorter ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

NODE_LATENCY: Final = 5e-6
LATENCY: Final = 10e-6
"""Seconds of a message inside a machine and between two, assumed: a copy on a GPU is started and its neighbour told in
some microseconds; between machines there are two such starts and a switch or two."""


@dataclass(frozen=True, slots=True)
class Link:
    """``rate`` in bytes a second of one device in one direction, ``latency`` in seconds of a message."""

    rate: float
    latency: float = 0.0

    @classmethod
    def of(cls, gbps: float, latency: float = 0.0) -> Link:
        """From Gbit/s, as makers state it."""
        return cls(gbps * 1e9 / 8, latency)

    def part(self, size: float, among: float, waits: float) -> float:
        """Seconds to gather ``size`` bytes among so many, or to scatter their sums."""
        return waits * self.latency + (among - 1) / among * size / self.rate if among > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Network:
    """``devices`` of which ``per_node`` are ``inside`` one machine; ``between`` is a device's link to other machines.

    A last machine that is not full is taken to be: the devices are spread evenly.
    """

    devices: int
    per_node: int
    inside: Link
    between: Link

    def __post_init__(self) -> None:
        if self.devices < 1 or self.per_node < 1:
            raise ValueError(f"{self.devices} devices, {self.per_node} to a machine: both are at least 1")

    @property
    def nodes(self) -> int:
        return math.ceil(self.devices / self.per_node)

    @property
    def beside(self) -> float:
        """Devices of one machine."""
        return self.devices / self.nodes

    def all_gather(self, size: float) -> float:
        """Seconds until each device has all ``size`` bytes, of which each had its part."""
        near = self.inside.part(size, self.beside, math.ceil(self.beside) - 1)
        return near + self.between.part(size / self.beside, self.nodes, math.ceil(math.log2(self.nodes)))

    def reduce_scatter(self, size: float) -> float:
        """Seconds until each device has its part of the sum of all devices' ``size`` bytes."""
        return self.all_gather(size)  # the same messages the other way round

    def all_reduce(self, size: float) -> float:
        """Seconds until each device has the sum of all devices' ``size`` bytes."""
        return self.reduce_scatter(size) + self.all_gather(size)
