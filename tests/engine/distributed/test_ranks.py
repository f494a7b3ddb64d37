"""What is made of the processes' times: who is named, what an event holds, what a log line says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerState

from lmtrain.engine.distributed import ranks as module
from lmtrain.engine.distributed.ranks import MOST_TOLD, Ranks, Times
from lmtrain.engine.meter import Meter

ONE_HOST, TWO_HOSTS = ("a",) * 4, ("a", "a", "b", "b")


def times(computing: list[float], data: list[float] | None = None, transfer: float = 0.05) -> Times:
    """Of steps that end together: who is done sooner waits."""
    data = data or [0.0] * len(computing)
    busy = [c + d for c, d in zip(computing, data, strict=True)]
    step = max(busy) + transfer
    rows = [[2, 2 * step, 2 * d, 2 * (step - b), 1e9 + n] for n, (d, b) in enumerate(zip(data, busy, strict=True))]
    return Times.of(10, rows, told_apart=True)


def test_who_computes_longer_is_named_with_its_host() -> None:
    held = times([1.0, 1.0, 1.0, 1.4]).held
    assert held is not None and (held.why, held.rank) == ("computing", 3)
    assert held.told(TWO_HOSTS) == "rank 3 (host b) computes 1.4x as long as the others; all wait for it"
    assert held.told(ONE_HOST) == "rank 3 computes 1.4x as long as the others; all wait for it"


def test_who_waits_for_data_is_named() -> None:
    held = times([1.0] * 4, [0.0, 0.0, 0.5, 0.0]).held
    assert held is not None and (held.why, held.rank) == ("data", 2)
    assert held.told(TWO_HOSTS) == "rank 2 (host b) waits for data 32% of the time; all wait for it"


@pytest.mark.parametrize(("longer", "why"), [(1.2, "data"), (2.0, "computing")])
def test_of_two_things_that_of_which_more_is_lost(longer: float, why: str) -> None:
    held = times([1.0, longer, 1.0, 1.0], [0.0, 0.0, 0.5, 0.0]).held
    assert held is not None and held.why == why


def test_transfers_that_take_much_of_a_step_are_told() -> None:
    held = times([1.0] * 4, transfer=1.0).held
    assert held is not None and held.rank is None
    assert held.told(ONE_HOST) == "exchanging gradients takes 50% of a step, on every rank"


@pytest.mark.parametrize(
    ("computing", "data"),
    [
        ([1.0, 1.05, 0.99, 1.08], None),  # no more than a tenth
        ([0.01, 0.01, 0.01, 0.05], [1.0] * 4),  # five times as long, of next to nothing
        ([1.0] * 4, [0.3] * 4),  # all read as slowly: the line of the step says so
    ],
)
def test_what_is_not_worth_a_word(computing: list[float], data: list[float] | None) -> None:
    assert times(computing, data).held is None


def test_the_parts_are_the_step() -> None:
    told = times([1.0, 1.4], [0.1, 0.0])
    assert told.seconds == pytest.approx(1.45) and told.steps == 2
    assert told.collectives == pytest.approx((0.35, 0.05))
    for parts in zip(told.computing, told.data, told.collectives or (), strict=True):
        assert sum(parts) == pytest.approx(told.seconds)


def test_sharded_models_keep_exchanges_in_computing_and_name_nobody() -> None:
    told = Times.of(4, [[1, 2.0, 0.5, 0.5, 1], [1, 2.0, 0.0, 0.1, 1]], told_apart=False)
    assert told.collectives is None and told.computing == (1.5, 2.0) and told.held is None
    assert "collectives" not in told.as_event(ONE_HOST) and "transfers" not in told.as_event(ONE_HOST)


def test_an_event_holds_every_process() -> None:
    event = times([1.0, 1.0, 1.0, 1.4]).as_event(TWO_HOSTS)
    assert event["rank"] == [0, 1, 2, 3] and event["host"] == list(TWO_HOSTS) and event["processes"] == 4
    assert event["computing"] == [1.0, 1.0, 1.0, 1.4] and event["transfers"] == pytest.approx(0.05)
    assert event["held_up_by"] == {"why": "computing", "rank": 3, "share": 0.2759, "times": 1.4}
    assert "host" not in times([1.0, 1.0]).as_event(("a", "a"))


def test_of_very_many_processes_an_event_holds_those_that_take_longest() -> None:
    event = times([1.0 + (rank % 100) / 1000 for rank in range(1000)]).as_event(("a",) * 1000)
    assert len(event["rank"]) == len(event["computing"]) == MOST_TOLD and event["processes"] == 1000
    assert event["rank"] == sorted(event["rank"]) and min(event["computing"]) >= 1.093


class Gathered:
    """Two processes in one: this one's figures, and another that takes ``slower`` times as long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.meter = Meter(clock=lambda: self.now)
        self.ranks = Ranks(self.meter, torch.device("cpu"), 2, memory=lambda _: 5)
        self.slower = 1.0
        self.state = TrainerState()
        event: Any = (SimpleNamespace(world_size=2), self.state, SimpleNamespace())
        monkeypatch.setattr(module, "gather_object", lambda mine: [*mine, "b"])
        monkeypatch.setattr(module, "gather", self.gather)
        self.meter.on_train_begin(*event)
        self.ranks.on_train_begin(*event)

    def gather(self, mine: torch.Tensor) -> torch.Tensor:
        steps, seconds, *_ = mine[0].tolist()
        other = torch.tensor([[steps, seconds, 0.0, seconds * (1 - self.slower), 7.0]], dtype=torch.float64)
        return torch.cat([mine, other])

    def lap(self, slower: float, steps: int = 1) -> str | None:
        self.slower = slower
        self.now += steps
        self.state.global_step += steps
        self.ranks.lap(self.state, told_apart=True)
        return self.ranks.line


def test_it_is_said_when_it_happens_twice_and_then_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Gathered(monkeypatch)
    assert [two.lap(slower) is not None for slower in (0.5, 1.0, 0.5, 0.5, 0.5, 1.0, 0.5, 0.5)] == [
        False, False, False, True, False, False, False, False,
    ]  # fmt: skip


def test_the_whole_is_the_mean_over_the_steps_and_the_most_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Gathered(monkeypatch)
    two.lap(1.0, steps=3)
    two.lap(0.2, steps=1)
    assert two.ranks.lap(two.state, told_apart=True) == {}, "no step since: no exchange"
    assert two.ranks.whole() == {
        "train_waiting_for_data": 0.0, "train_memory": 7, "train_memory_rank": 1, "train_collectives": 0.1,
        "train_held_up_by_rank": 0,
    }  # fmt: skip


def test_one_process_gathers_nothing() -> None:
    alone = Ranks(Meter(), torch.device("cpu"), 1)
    state = TrainerState()
    state.global_step = 3
    assert alone.lap(state, told_apart=True) == {} and alone.whole() == {} and alone.newest is None
