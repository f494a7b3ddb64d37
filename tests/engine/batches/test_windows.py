"""The order of examples in windows of a store: every example once, near ones together, a function of its counters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmtrain.data.layouts.base import ByNumber
from lmtrain.engine.batches.ordering import Ordering
from lmtrain.engine.batches.sampling import EpochOrder
from lmtrain.engine.batches.windows import InWindows
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, gpt2, rows

COUNT, LENGTH, CHUNK = 5003, 16, 1024  # 64 examples a chunk, 79 chunks


def order(window_chunks: float = 20, step: int = 24, count: int = COUNT) -> InWindows:
    found = InWindows.of(np.arange(count) * LENGTH, CHUNK, int(window_chunks * CHUNK), step)
    assert found is not None
    return found


@pytest.mark.parametrize(("step", "chunks"), [(24, 20), (24, 1), (7, 40), (1, 3), (5003, 30), (6000, 9), (64, 0.01)])
def test_every_example_comes_once_an_epoch(step: int, chunks: float) -> None:
    windows = order(chunks, step)
    for epoch in (0, 3):
        assert np.array_equal(np.sort(windows.at(np.arange(COUNT), 5, epoch)), np.arange(COUNT))


def test_the_order_is_a_function_of_seed_epoch_and_place() -> None:
    windows = order()
    whole = windows.at(np.arange(COUNT), 5, 1)
    places = np.array([4999, 17, 17, 2500])
    assert np.array_equal(order().at(places, 5, 1), whole[places])
    assert not np.array_equal(whole, windows.at(np.arange(COUNT), 5, 2))
    assert not np.array_equal(whole, windows.at(np.arange(COUNT), 6, 1))


def test_near_examples_come_together_and_not_in_their_order() -> None:
    windows = order(20, 24)
    assert (windows.lanes, windows.window) == (2, 640)
    whole = windows.at(np.arange(COUNT), 0, 0)
    for start in range(0, COUNT - 500, 500):  # 500 places of two lanes: 250 of each
        chunks = np.unique(whole[start : start + 500] // 64)
        assert len(chunks) <= 2 * 2 * 12, "at most two windows of ten chunks each, begun and ended inside chunks"
    steps = np.diff(whole[:640])
    assert (steps == 1).mean() < 0.05, "examples are shuffled"


def test_each_process_reads_chunks_of_its_own() -> None:
    """Four processes of six examples of each step: what they read in an epoch hardly overlaps."""
    windows = InWindows.of(np.arange(20_000) * LENGTH, CHUNK, 64 * CHUNK, 24)
    assert windows is not None and windows.lanes == 8
    whole, places = windows.at(np.arange(20_000), 0, 0), np.arange(20_000)
    read = [set((whole[(places // 6) % 4 == rank] // 64).tolist()) for rank in range(4)]
    chunks = 20_000 // 64 + 1
    assert sum(map(len, read)) <= chunks + 2 * 8, "only chunks in which a lane ends are read twice"


def test_the_borders_of_chunks_are_found_without_looking_at_every_example() -> None:
    """As counting all of them finds them, for examples of any length, some longer than a chunk."""
    random, asked = np.random.default_rng(0), [0]

    def first_of(numbers: np.ndarray) -> np.ndarray:
        asked[0] += numbers.size
        return first[numbers]

    for count, longest in ((2, 10), (500, 3), (4000, 40), (900, 5000)):
        first, asked[0] = 77 + np.cumsum(random.integers(0, longest, count)), 0
        chunk = 256
        windows = InWindows.of(ByNumber(count, first_of, ascending=True), chunk, 1, 4)
        assert windows is not None
        right = np.flatnonzero(np.diff(first // chunk)) + 1
        assert windows.borders.tolist() == [0, *right.tolist(), count]
        assert asked[0] <= 2 + 14 * (1 + (first[-1] - first[0]) // chunk)
    assert InWindows.of(ByNumber(100, lambda n: -n, ascending=False), 4, 1, 4) is None


def test_windows_that_hold_all_are_none() -> None:
    assert InWindows.of(np.arange(100) * LENGTH, CHUNK, 100 * LENGTH, 4) is None
    assert InWindows.of(np.array([16, 0, 32]) * 1000, CHUNK, 10, 4) is None, "random documents lie nowhere together"


@pytest.mark.parametrize("start", [0, 1, 777, 5002, 5003, 5006])
def test_a_resumed_epoch_goes_on_in_its_order(start: int) -> None:
    sampler = EpochOrder(COUNT, 3, windows=order(), multiple=8)
    sampler.set_epoch(2)
    whole = list(sampler)
    assert len(whole) == len(sampler) == 5008
    real = [number for number in whole if number >= 0]
    assert sorted(number - 2 * COUNT for number in real) == list(range(COUNT))
    assert all(0 <= ~number - 2 * COUNT < COUNT for number in whole if number < 0)
    sampler.start = start
    assert list(sampler) == whole[start:]


def test_a_trainer_reads_in_windows(tmp_path: Path) -> None:
    windows = InWindows(np.arange(0, 49, 4), 8, 1, 4)
    made = LMTrainer(
        gpt2(), arguments(tmp_path), MemoryLayout(rows(48)), MemoryLayout(rows(8)), objective=Causal(),
        ordering=Ordering(windows), packing=False,
    )  # fmt: skip
    read = [ids for batch in made.get_train_dataloader() for ids in batch["input_ids"].tolist()]
    expected = MemoryLayout(rows(48)).__getitems__(windows.at(np.arange(48), made._seed, 0).tolist())
    lengths = expected.lengths.tolist()
    assert [row[:length] for row, length in zip(read, lengths, strict=True)] == [
        row[:length] for row, length in zip(expected.ids.tolist(), lengths, strict=True)
    ]


def test_what_comes_is_told_before_it_comes_and_once() -> None:
    class Told:
        def __init__(self) -> None:
            self.places: list[int] = []

        def expect(self, places: np.ndarray, examples: np.ndarray) -> None:
            assert np.array_equal(examples, windows.at(places, 3, 0))
            self.places += places.tolist()

    windows, told = order(), Told()
    sampler = EpochOrder(COUNT, 3, windows=windows, upcoming=told)  # type: ignore[arg-type]
    sampler.start = 100
    reach = windows.window * windows.lanes // 2
    for number, _ in enumerate(sampler, start=100):
        assert told.places[-1] + 1 >= min(number + reach, COUNT)
    assert told.places == list(range(100, COUNT))
