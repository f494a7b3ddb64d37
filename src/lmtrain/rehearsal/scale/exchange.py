"""What a training step exchanges, and how much of it the computation hides.

Bytes that a device sends, and as many that it receives (Rajbhandari et al. 2020, "ZeRO", section 7):

* **DDP** all-reduces the gradients once a step: about twice their bytes.
* **FSDP2** (ZeRO-3) gathers the weights for each forward and again for each backward pass and scatters the sums of
  the gradients: about twice the weights a micro-batch, and the gradients once a step (accumulation keeps them whole
  until the last micro-batch, as Accelerate does it).

DDP's gradients are fp32 where weights are; FSDP2 under bf16 gathers and sums in bf16 (Accelerate's default).

DDP (Li et al. 2020, "PyTorch Distributed", section 3.2) exchanges buckets while the backward pass goes on: the *i*-th
of *K* is full after ``i/K`` of it, and they follow one another. FSDP2 gathers a layer while the one before it computes.
What is not hidden is waited for. Computation is taken not to be slowed by the exchange beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmtrain.rehearsal.scale.network import Network

BUCKET = 25 << 20
"""Bytes that DDP collects before it exchanges them (torch's ``bucket_cap_mb``)."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of one device, alone: ``forward`` and ``backward`` seconds of one of its ``passes`` micro-batches,
    ``update`` seconds after them.

    ``gradients`` bytes are what DDP exchanges of the trained parameters; FSDP2 gathers ``weights`` bytes of all
    parameters and scatters the sums of ``sums`` bytes of gradients, in ``layers`` equal groups.
    """

    forward: float
    backward: float
    update: float
    gradients: float
    weights: float
    sums: float
    layers: int
    passes: int = 1

    @property
    def seconds(self) -> float:
        return self.passes * (self.forward + self.backward) + self.update


@dataclass(frozen=True, slots=True)
class Exchange:
    """``sent`` bytes of one device a step, ``seconds`` that they take, ``waited`` of these that nothing hides, and
    ``step`` seconds with that."""

    sent: float
    seconds: float
    waited: float
    step: float

    @property
    def share(self) -> float:
        """Of the step's time that is waited."""
        return self.waited / self.step if self.step else 0.0


def ddp(step: Step, network: Network, bucket: float = BUCKET) -> Exchange:
    """A step under ``DistributedDataParallel``."""
    buckets = max(1, math.ceil(step.gradients / bucket))
    one = network.all_reduce(step.gradients / buckets)
    waited = _beyond(step.backward, one, buckets)
    sent = 2 * _others(network) * step.gradients
    return Exchange(sent, buckets * one, waited, step.seconds + waited)


def fsdp2(step: Step, network: Network) -> Exchange:
    """A step under ``fully_shard``, a layer a group, weights let go after each forward pass."""
    gather = network.all_gather(step.weights / step.layers)
    scatter = network.reduce_scatter(step.sums / step.layers)
    forward, backward = step.forward / step.layers, step.backward / step.layers
    later = step.layers - 1
    there = gather + later * max(0.0, gather - forward)
    back = gather + later * max(0.0, gather - backward)
    last = gather + later * max(0.0, gather + scatter - backward) + scatter
    waited = step.passes * there + (step.passes - 1) * back + last
    sent = _others(network) * (2 * step.passes * step.weights + step.sums)
    seconds = step.layers * (2 * step.passes * gather + scatter)
    return Exchange(sent, seconds, waited, step.seconds + waited)


def _others(network: Network) -> float:
    return (network.devices - 1) / network.devices


def _beyond(backward: float, one: float, buckets: int) -> float:
    """Seconds after the backward pass until the last bucket is exchanged.

    Bucket i begins when it is full and the one before is done; of equal ones either the last waits for its fill or all
    follow the first without a gap.
    """
    return max(one, backward / buckets + buckets * one - backward) if one else 0.0
