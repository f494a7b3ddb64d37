"""Rows of examples: every one once, none too long, few rows, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtrain.data.packing import Plan, _into, fill, plan, plan_rows

lengths_of = st.lists(st.integers(0, 40), min_size=1, max_size=40)


def fewest_rows(lengths: list[int], width: int) -> int:
    """By trying every way: for a handful of examples."""
    best = len(lengths)

    def place(at: int, loads: list[int]) -> None:
        nonlocal best
        if len(loads) >= best:
            return
        if at == len(lengths):
            best = len(loads)
            return
        for row in range(len(loads)):
            if loads[row] + lengths[at] <= width:
                place(at + 1, [*loads[:row], loads[row] + lengths[at], *loads[row + 1 :]])
        place(at + 1, [*loads, lengths[at]])

    place(0, [])
    return best


@given(lengths=lengths_of, room=st.integers(0, 60))
def test_every_example_is_in_one_row_that_has_room_for_it(lengths: list[int], room: int) -> None:
    width = max(lengths) + room
    rows = plan_rows(lengths, width)
    assert sorted(example for row in rows for example in row) == list(range(len(lengths)))
    assert all(row and sum(lengths[i] for i in row) <= width for row in rows)
    assert rows == plan_rows(np.array(lengths, np.int32), width)


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8), room=st.integers(0, 20))
@settings(deadline=None)
def test_no_more_rows_than_the_theorem_allows(lengths: list[int], room: int) -> None:
    width = max(lengths) + room
    assert len(plan_rows(lengths, width)) <= 11 / 9 * fewest_rows(lengths, width) + 1


def test_each_example_goes_into_the_fullest_row_that_takes_it() -> None:
    assert plan_rows([5, 3, 4, 2], 8) == [[0, 1], [2, 3]]
    assert plan_rows([6, 7, 2, 1], 8) == [[1, 3], [0, 2]], "the 1 goes beside the 7, not beside the 6 and 2"
    assert plan_rows([4, 4, 4], 4) == [[0], [1], [2]]
    assert plan_rows([], 4) == []


def test_equal_lengths_keep_their_order() -> None:
    assert plan_rows([2] * 6, 4) == [[0, 1], [2, 3], [4, 5]]


def test_an_example_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="9 tokens does not fit into a row of 8"):
        plan_rows([3, 9], 8)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40), count=st.integers(1, 40))
def test_rows_that_are_asked_for_are_enough(lengths: list[int], count: int) -> None:
    even = max(*lengths, -(-sum(lengths) // count), 1)
    assert len(_into(np.array(lengths), count, even)) <= count


@given(lengths=lengths_of, break_even=st.floats(1, 1e5), alignment=st.sampled_from([1, 8]))
@settings(deadline=None)
def test_the_chosen_rows_hold_everything_and_never_cost_more_than_the_two_extremes(
    lengths: list[int], break_even: float, alignment: int
) -> None:
    chosen = plan(lengths, break_even, alignment=alignment)
    assert sorted(example for row in chosen.rows for example in row) == list(range(len(lengths)))
    assert max(sum(lengths[i] for i in row) for row in chosen.rows) <= chosen.width
    assert chosen.width % alignment == 0 or len(chosen.rows) == len(lengths)
    one_each = Plan([[i] for i in range(len(lengths))], max(lengths))
    all_in_one = Plan([list(range(len(lengths)))], -(-sum(lengths) // alignment) * alignment)
    assert chosen.cost(break_even) <= one_each.cost(break_even) + 1e-6
    # With so slow an attention the search ends before it; with a fast one it gets there.
    if break_even > 1e4:
        assert chosen.cost(break_even) <= 1.02 * all_in_one.cost(break_even) + alignment


def test_attention_that_costs_much_keeps_rows_short_and_one_that_costs_little_fills_them() -> None:
    lengths = np.array([97, 30, 55, 64, 12, 81, 40, 33])
    slow, fast = plan(lengths, 10), plan(lengths, 1e7)
    assert slow.width <= 112  # the longest has 97
    positions = len(fast.rows) * fast.width
    assert positions - lengths.sum() < 8 and fast.width > slow.width


def test_a_large_batch_is_planned_in_little_time_and_almost_full() -> None:
    lengths = np.random.default_rng(0).integers(3, 129, 1024)
    chosen = plan(lengths, 1400)
    assert lengths.sum() / (len(chosen.rows) * chosen.width) > 0.99


def test_fill_says_what_padding_wastes() -> None:
    lengths = np.tile([8, 24], 100)
    shares = fill(lengths, 8)
    assert shares == fill(lengths, 8), "the same every time"
    assert 0.6 < shares.padded < 0.75 and shares.packed > 0.95
    assert fill(np.full(5, 16), 2) == (1.0, 1.0)
    assert fill(np.array([], np.int64), 8) == (0.0, 0.0)
