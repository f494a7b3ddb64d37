from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import forked
from lmtrain.core.streams import permutation
from lmtrain.engine.batches.sampling import ByLength, EpochOrder, RankBatches


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


def test_another_process_draws_the_same(tmp_path: Path) -> None:
    """Also one whose strings hash otherwise."""
    code = "from lmtrain.engine.batches.sampling import EpochOrder; print(hash('a'), list(EpochOrder(20, seed=3)))"
    (tmp_path / "draw.py").write_text(code)
    hashed, printed = forked.run([tmp_path / "draw.py"]).stdout.split(maxsplit=1)
    assert printed.strip() == str(list(EpochOrder(20, seed=3)))
    assert int(hashed) != hash("a")


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


LENGTHS = np.random.default_rng(5).integers(1, 200, 103)


def test_by_length_keeps_each_example_once_and_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int) -> EpochOrder:
        return EpochOrder(103, seed=seed, by_length=ByLength(LENGTHS, 4, window=5))

    drawn = order(3)
    first, second = epoch(drawn, 0), epoch(drawn, 1)
    assert sorted(first) == list(range(103)) and sorted(second) == list(range(103, 206))
    assert [c - 103 for c in second] != first
    assert epoch(order(3), 1) == second, "no epoch before it is needed"
    assert epoch(order(4), 1) != second


def test_by_length_sorts_within_windows_and_shuffles_the_batches() -> None:
    plain, arranged = (
        epoch(EpochOrder(103, seed=3), 0),
        epoch(EpochOrder(103, seed=3, by_length=ByLength(LENGTHS, 4, window=5)), 0),
    )
    for start in range(0, 100, 20):
        window = arranged[start : start + 20]
        assert sorted(window) == sorted(plain[start : start + 20]), "the same examples as without it"
        batches = LENGTHS[window].reshape(-1, 4)
        spans = sorted((int(batch.min()), int(batch.max())) for batch in batches)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert sorted(arranged[100:]) == sorted(plain[100:]), "what does not fill a step comes last"
    longest_first = [LENGTHS[arranged[start : start + 4]].max() for start in range(0, 100, 4)]
    assert longest_first != sorted(longest_first), "batches are in no order of length"


def test_each_epoch_shuffles_the_steps_anew() -> None:
    in_order = EpochOrder(100, seed=3, shuffle=False, by_length=ByLength(LENGTHS[:100], 4))
    first, second = epoch(in_order, 0), [counter - 100 for counter in epoch(in_order, 1)]
    assert first != second and sorted(first) == sorted(second)


def test_by_length_pads_less() -> None:
    def positions(order: list[int]) -> int:
        return sum(4 * int(LENGTHS[order[start : start + 4]].max()) for start in range(0, 100, 4))

    sorted_in_windows = epoch(EpochOrder(103, seed=3, by_length=ByLength(LENGTHS, 4)), 0)
    assert positions(sorted_in_windows) < 0.75 * positions(epoch(EpochOrder(103, seed=3), 0))


def test_a_window_of_one_step_leaves_every_step_its_examples() -> None:
    plain = epoch(EpochOrder(103, seed=3), 1)
    arranged = epoch(EpochOrder(103, seed=3, by_length=ByLength(LENGTHS, 20, window=1)), 1)
    for start in range(0, 103, 20):
        step = arranged[start : start + 20]
        assert sorted(step) == sorted(plain[start : start + 20])
        assert [LENGTHS[i - 103] for i in step] == sorted(LENGTHS[i - 103] for i in step), "micro-batches are alike"


def test_by_length_leaves_fillers_at_the_end() -> None:
    counters = epoch(EpochOrder(103, seed=3, multiple=8, by_length=ByLength(LENGTHS, 4)), 2)
    assert len(counters) == 104 and counters[-1] < 0 <= min(counters[:-1])


@pytest.mark.parametrize("world", [1, 3])
def test_ranks_share_sorted_batches_longest_first(world: int) -> None:
    ranks = [list(RankBatches(103, 4, rank=rank, world=world, lengths=LENGTHS)) for rank in range(world)]
    batches = [ranks[number % world][number // world] for number in range(26)]
    assert sorted(i for batch in batches for i in batch) == list(range(103))
    assert [LENGTHS[i] for batch in batches for i in batch] == sorted(LENGTHS, reverse=True)
