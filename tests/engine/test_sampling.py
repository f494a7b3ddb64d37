import subprocess
import sys

import numpy as np
import pytest

from lmtrain.core.streams import permutation
from lmtrain.engine.sampling import EpochOrder, RankBatches


def epoch(order: EpochOrder, number: int) -> list[int]:
    order.set_epoch(number)
    return list(order)


def test_every_epoch_has_its_own_order_of_all_examples() -> None:
    order = EpochOrder(100, seed=3)
    first, second = epoch(order, 0), epoch(order, 1)
    assert sorted(first) == list(range(100))
    assert sorted(second) == list(range(100, 200))  # counters say the epoch
    assert [counter % 100 for counter in second] != first


def test_an_order_needs_none_before_it() -> None:
    drawn = EpochOrder(50, seed=3)
    for number in range(7):
        epoch(drawn, number)
    assert epoch(drawn, 7) == epoch(EpochOrder(50, seed=3), 7)
    assert epoch(EpochOrder(50, seed=4), 7) != epoch(drawn, 7)


def test_another_process_draws_the_same() -> None:
    code = "from lmtrain.engine.sampling import EpochOrder; print(list(EpochOrder(20, seed=3)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(list(EpochOrder(20, seed=3)))


def test_plain_indices_for_data_sets_that_are_not_ours() -> None:
    assert epoch(EpochOrder(9, seed=1, counters=False, multiple=4), 5) == permutation(1, 5, 9).tolist()
    assert epoch(EpochOrder(4, seed=1, shuffle=False), 2) == [8, 9, 10, 11]


def test_fillers_round_an_epoch_up_and_are_marked() -> None:
    order = EpochOrder(7, seed=0, multiple=4)
    counters = epoch(order, 3)
    assert len(order) == len(counters) == 8
    assert sorted(c for c in counters if c >= 0) == list(range(21, 28))
    (filler,) = (c for c in counters if c < 0)
    assert ~filler in counters


def test_fillers_may_outnumber_the_examples() -> None:
    counters = list(EpochOrder(2, seed=0, multiple=16))
    assert len(counters) == 16
    assert sorted(c for c in counters if c >= 0) == [0, 1]


def test_large_epochs_are_drawn_in_parts_without_losing_any() -> None:
    count = (1 << 16) + 3
    assert np.array_equal(np.sort(list(EpochOrder(count, seed=0))), np.arange(count))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_batches_and_repeat_none(count: int, world: int) -> None:
    ranks = [RankBatches(count, 2, rank=rank, world=world) for rank in range(world)]
    assert sorted(i for rank in ranks for batch in rank for i in batch) == list(range(count))
    assert all(len(list(rank)) == len(rank) == rank.own for rank in ranks)


@pytest.mark.parametrize("count", [1, 3, 7, 8])
def test_equal_rounds_repeat_only_what_does_not_count(count: int) -> None:
    ranks = [RankBatches(count, 2, rank=rank, world=3, equal=True) for rank in range(3)]
    assert len({len(list(rank)) for rank in ranks}) == 1
    counted = [i for rank in ranks for batch in list(rank)[: rank.own] for i in batch]
    assert sorted(counted) == list(range(count))
