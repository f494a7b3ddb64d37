"""The learning rate of each micro-batch, by hand."""

import math

import pytest
import torch

from lmtrain.recipes.gpt2_ft.schedules import ByMicroBatch, constant, cosine, cycle, linear


def test_linear_rises_and_falls_to_zero() -> None:
    rate = linear(0.2, 4, 12)
    assert [rate(k) for k in (0, 1, 4, 8, 12, 13)] == pytest.approx([0.0, 0.05, 0.2, 0.1, 0.0, 0.0])
    assert linear(0.2, 0, 12)(0) == 0.2
    assert linear(0.2, 0, 0)(0) == 0.0  # a cycle's run that ends at 0 divides by no 0


def test_constant_rises_and_stays() -> None:
    rate = constant(0.2, 4)
    assert [rate(k) for k in (0, 1, 4, 5, 99)] == pytest.approx([0.0, 0.05, 0.2, 0.2, 0.2])
    assert constant(0.2)(0) == 0.2


def test_cosine_is_that_of_the_whole_run() -> None:
    rate = cosine(0.2, 4, 16)
    assert rate(3) == pytest.approx(0.15)
    assert rate(4) == pytest.approx(0.1 * (1 + math.cos(math.pi / 4)))  # a step down from 0.2
    assert rate(16) == pytest.approx(0.0)
    assert rate(20) == rate(16)
    assert cosine(0.2, 0, 16)(0) == 0.0  # the original's first rate, also without warm-up
    assert cosine(0.2, 0, 16)(1) > 0.19


def test_cycle_goes_through_its_corners() -> None:
    rate = cycle([0, 10, 30], [0.1, 0.3, 0.0])
    assert [rate(k) for k in (0, 5, 10, 20, 30, 31)] == pytest.approx([0.1, 0.2, 0.3, 0.15, 0.0, 0.0], abs=1e-7)
    assert cycle([0], [0.25])(7) == 0.25
    late = cycle([10, 20], [0.1, 0.3])
    assert (late(0), late(5)) == (0.1, 0.3)  # before its first corner the rate is that of the last


def test_only_micro_batches_move_the_rate() -> None:
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([{"params": [weight]}, {"params": [torch.zeros(1, requires_grad=True)]}], lr=9.0)
    schedule = ByMicroBatch(optimizer, linear(0.2, 4, 12))
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
    schedule.move_to(3)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.15, 0.15])
    assert schedule.get_last_lr() == pytest.approx([0.15, 0.15])
    other = ByMicroBatch(torch.optim.SGD([weight], lr=9.0), linear(0.2, 4, 12))
    other.load_state_dict(schedule.state_dict())
    assert other.optimizer.param_groups[0]["lr"] == pytest.approx(0.15)
