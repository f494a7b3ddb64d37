"""The order of a run's examples, against torch's sampler and Python's generator as the original uses them."""

import math
import random

import pytest
import torch
from torch.utils.data.distributed import DistributedSampler

from lmtrain.recipes.gpt2_ft.order import Plan, RunOrder, plan, validation_batches


def original(examples: int, batch: int, seed: int, epochs: range) -> list[list[int]]:
    """A list an epoch: a sampler of the padded data set, and one generator for all places behind the last example."""
    padded = list(range(math.ceil(examples / batch) * batch))
    sampler = DistributedSampler(padded, num_replicas=1, rank=0, seed=seed)  # type: ignore[arg-type]
    fill, found = random.Random(911), []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        found.append([place if place < examples else fill.randint(0, examples - 1) for place in sampler])
    return found


@pytest.mark.parametrize(("examples", "batch"), [(13, 4), (12, 4), (3, 8), (1, 1), (5, 2)])
def test_epochs_are_strung_together_as_the_original_makes_them(examples: int, batch: int) -> None:
    an_epoch = math.ceil(examples / batch)
    whole = list(RunOrder(examples, batch, 3 * an_epoch, seed=110))
    assert whole == [number for epoch in original(examples, batch, 110, range(1, 4)) for number in epoch]
    assert len(RunOrder(examples, batch, 3 * an_epoch, seed=110)) == len(whole)
    if an_epoch > 1:
        assert whole[: len(whole) // 3] != whole[len(whole) // 3 : 2 * len(whole) // 3]


def test_a_run_that_ends_in_mid_epoch_has_the_beginning_of_it() -> None:
    order = RunOrder(13, 4, 9, seed=7)
    assert list(order) == list(RunOrder(13, 4, 12, seed=7))[:36]
    assert list(order) == list(order)  # read twice: the fills begin anew


def test_each_evaluation_goes_on_with_the_fills_of_the_one_before() -> None:
    padded = list(range(8))
    sampler = DistributedSampler(padded, num_replicas=1, rank=0, seed=10)  # type: ignore[arg-type]
    fill = random.Random(911)
    found = []
    for evaluation in range(4):
        expected = [place if place < 5 else fill.randint(0, 4) for place in sampler]
        batches = validation_batches(5, 4, 10, evaluation)
        assert batches.shape == (2, 4)
        assert batches.flatten().tolist() == expected
        found.append(expected)
    assert found[0] != found[1]


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(1)
    random.seed(1)
    expected = (torch.rand(()).item(), random.random())
    torch.manual_seed(1)
    random.seed(1)
    list(RunOrder(13, 4, 9, seed=7))
    validation_batches(5, 4, 10, 2)
    assert (torch.rand(()).item(), random.random()) == expected


@pytest.mark.parametrize(
    ("max_step", "max_epoch", "expected"),
    [
        (None, 5, Plan(4, 20, 20)),
        (10, None, Plan(4, 10, 10)),
        (10, 2, Plan(4, 8, 10)),  # the schedule is still that of 10
        (10, 3, Plan(4, 10, 10)),
        (0, None, Plan(4, 4, 0)),  # of --scheduler cycle whose only corner is 0
    ],
)
def test_the_earlier_limit_ends_the_run(max_step: int | None, max_epoch: int | None, expected: Plan) -> None:
    assert plan(13, 4, max_step, max_epoch) == expected


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="neither is given"):
        plan(13, 4, None, None)


def test_micro_batches_know_their_epoch() -> None:
    run = Plan(4, 10, 10)
    assert [run.epoch(k) for k in range(1, 11)] == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    assert [run.place(k) for k in range(1, 11)] == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert [k for k in range(1, 11) if run.ends_epoch(k)] == [4, 8, 10]
