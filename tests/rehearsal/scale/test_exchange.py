"""The arithmetic of exchanges against messages counted one by one, and of overlap against a timeline played through."""

from __future__ import annotations

import math

import pytest

from lmtrain.rehearsal.scale.exchange import Step, ddp, fsdp2
from lmtrain.rehearsal.scale.network import Link, Network

SLOW, FAST = Link(1e9, 1e-3), Link(1e10, 1e-4)


def ring_all_reduce(devices: int, size: float, link: Link) -> float:
    """Played: in each round every device passes one of ``devices`` parts to its neighbour, twice around less one."""
    parts = [{number} for number in range(devices)]  # whose sums a device's current part holds
    seconds = 0.0
    for _ in range(devices - 1):  # scatter the sums
        parts = [parts[number - 1] | {number} for number in range(devices)]
        seconds += link.latency + size / devices / link.rate
    assert all(part == set(range(devices)) for part in parts)
    held = [{number} for number in range(devices)]
    while any(len(own) < devices for own in held):  # gather them
        held = [own | held[number - 1] for number, own in enumerate(held)]
        seconds += link.latency + size / devices / link.rate
    return seconds


@pytest.mark.parametrize("devices", [2, 3, 8])
def test_a_ring_inside_a_machine_takes_as_long_as_its_messages(devices: int) -> None:
    network = Network(devices, 8, SLOW, FAST)
    assert network.all_reduce(6e8) == pytest.approx(ring_all_reduce(devices, 6e8, SLOW))
    assert network.all_reduce(6e8) == pytest.approx(2 * (devices - 1) * (1e-3 + 6e8 / devices / 1e9))
    assert network.all_gather(6e8) == network.reduce_scatter(6e8) == pytest.approx(network.all_reduce(6e8) / 2)


def test_one_device_exchanges_nothing() -> None:
    network = Network(1, 8, SLOW, FAST)
    assert network.all_reduce(1e9) == 0
    step = Step(1.0, 2.0, 0.5, gradients=4e8, weights=2e8, sums=2e8, layers=4, passes=3)
    for way in (ddp(step, network), fsdp2(step, network)):
        assert (way.sent, way.seconds, way.waited, way.share) == (0, 0, 0, 0)
        assert way.step == step.seconds == 9.5


def test_between_machines_each_device_exchanges_its_part_over_its_own_link() -> None:
    network = Network(32, 8, FAST, SLOW)  # 4 machines
    near = 2 * (7 * 1e-4 + 7 / 8 * 8e8 / 1e10)
    far = 2 * (2 * 1e-3 + 3 / 4 * 1e8 / 1e9)  # an eighth of the tensor, halving and doubling: two messages
    assert (network.nodes, network.beside) == (4, 8)
    assert network.all_reduce(8e8) == pytest.approx(near + far)


@pytest.mark.parametrize(("devices", "per_node"), [(0, 8), (8, 0)])
def test_a_network_of_nothing_is_refused(devices: int, per_node: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Network(devices, per_node, SLOW, FAST)


@pytest.mark.parametrize("backward", [0.1, 1.0, 1.7, 30.0])
def test_ddp_waits_as_long_as_its_buckets_played_through(backward: float) -> None:
    network, buckets = Network(4, 8, SLOW, FAST), 7
    step = Step(1.0, backward, 0.2, gradients=7e8, weights=1, sums=1, layers=1)
    one, done = network.all_reduce(1e8), 0.0
    for bucket in range(1, buckets + 1):
        done = max(done, backward * bucket / buckets) + one
    way = ddp(step, network, bucket=1e8)
    assert way.waited == pytest.approx(done - backward)
    assert way.seconds == pytest.approx(buckets * one)
    assert way.sent == pytest.approx(2 * 3 / 4 * 7e8)
    assert way.step == pytest.approx(step.seconds + way.waited)


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("compute", [0.01, 0.5, 20.0])
def test_fsdp_waits_as_long_as_its_layers_played_through(compute: float, passes: int) -> None:
    network, layers = Network(4, 8, SLOW, FAST), 5
    step = Step(compute, 2 * compute, 0.0, gradients=1, weights=1e9, sums=5e8, layers=layers, passes=passes)
    gather, scatter = network.all_gather(1e9 / layers), network.reduce_scatter(5e8 / layers)
    now = 0.0
    for number in range(passes):
        for seconds, scatters in ((compute / layers, False), (2 * compute / layers, number == passes - 1)):
            now += gather  # of the first layer
            for layer in range(layers):  # beside a layer's computing: the next one's weights, the last one's sums
                beside = (gather if layer < layers - 1 else 0.0) + (scatter if scatters and layer else 0.0)
                now += max(seconds, beside)
            now += scatter if scatters else 0.0
    way = fsdp2(step, network)
    assert way.sent == pytest.approx(3 / 4 * (2 * passes * 1e9 + 5e8))
    assert way.step == pytest.approx(now, rel=0.05)  # the first and the last layer exchange less beside them
    assert way.step >= step.seconds and way.waited <= way.seconds


def test_a_faster_network_never_waits_longer() -> None:
    step = Step(0.5, 1.0, 0.1, gradients=4e8, weights=2e8, sums=2e8, layers=12)
    for way in (ddp, fsdp2):
        waits = [way(step, Network(64, 8, Link.of(3600), Link.of(gbps))).waited for gbps in (1, 10, 100, 400)]
        assert waits == sorted(waits, reverse=True) and waits[0] > 10 * waits[-1]
    assert Link.of(400).rate == 50e9 and math.isclose(Link.of(8, 1e-6).part(1e9, 2, 1), 0.5 + 1e-6)
