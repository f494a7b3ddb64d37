"""Of two processes on gloo the slow one is named, the other's waiting measured, and no bit changed by it."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from slow_ranks import ASLEEP, SLOW_READ, STEPS

from launching import MARKS, launch

pytestmark = MARKS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slow")
    launch(Path(__file__).with_name("slow_ranks.py"), folder, processes=2, timeout=900)
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    """What each of the two saw, by run."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def times(folder: Path) -> float:
    """How many times as long as on a machine without other work the slow one slept."""
    return float((folder / "times.json").read_text())


@pytest.mark.parametrize("slow", [0, 1])
def test_who_computes_longer_is_named(slow: int, seen: list[dict[str, Any]]) -> None:
    run = seen[0]["first computes" if slow == 0 else "second computes"]
    assert [event["step"] for event in run["ranks"]] == [2, 4, 6]
    held = held_up_by(run["ranks"])
    assert held.count(("computing", slow)) >= 2, "of three: the machine may have other work"
    twice = any(one == other == ("computing", slow) for one, other in pairwise(held))
    assert run["said"].count(f"rank {slow} computes ") == twice, "when it happens twice in a row, and once"
    assert run["whole"]["train_held_up_by_rank"] == slow


def held_up_by(events: list[dict[str, Any]]) -> list[tuple[str, int | None]]:
    return [(held.get("why", ""), held.get("rank")) for held in (event.get("held_up_by", {}) for event in events)]


def is_about(seconds: float, events: list[dict[str, Any]], part: str, more: int) -> bool:
    """Whether the rank ``more`` spends so much longer in ``part`` than the other, as far as a machine with other work
    lets one see: in one of the log lines at least not much less, in one not much more."""
    found = [event[part][more] - event[part][1 - more] for event in events]
    return max(found) > 0.6 * seconds and min(found) < 1.6 * seconds


@pytest.mark.parametrize("slow", [0, 1])
def test_the_other_waits_about_as_long(slow: int, seen: list[dict[str, Any]], times: float) -> None:
    events = seen[0]["first computes" if slow == 0 else "second computes"]["ranks"]
    assert is_about(2 * times * ASLEEP, events, "computing", slow)
    assert is_about(2 * times * ASLEEP, events, "collectives", 1 - slow)
    for event in events:
        for rank in (0, 1):  # the three parts are the step
            parts = event["computing"][rank] + event["data"][rank] + event["collectives"][rank]
            assert parts == pytest.approx(event["seconds"], rel=0.1)


def test_who_waits_for_data_is_named(seen: list[dict[str, Any]], times: float) -> None:
    run = seen[0]["second reads"]
    events = run["ranks"][:-1]  # reading is ahead: the last steps' rows are there
    assert is_about(4 * times * SLOW_READ, events, "data", 1)
    assert is_about(4 * times * SLOW_READ, events, "collectives", 0)
    assert held_up_by(events) == [("data", 1)] * len(events) and "rank 1 waits for data " in run["said"]
    assert run["train"][0]["waiting_for_data"] > 0.3, "that of the process that waits longest"


def test_in_a_sharded_model_too(seen: list[dict[str, Any]], times: float) -> None:
    run = seen[0]["sharded, second computes"]
    assert held_up_by(run["ranks"]).count(("computing", 1)) >= 2
    assert is_about(2 * times * ASLEEP, run["ranks"], "collectives", 0)
    for rank in (0, 1):
        assert seen[rank]["sharded, second computes"]["weights"] == seen[rank]["sharded"]["weights"]
        assert seen[rank]["sharded, second computes"]["losses"] == seen[rank]["sharded"]["losses"]


def test_no_bit_changes(seen: list[dict[str, Any]]) -> None:
    for rank in (0, 1):
        plain = seen[rank]["unmeasured"]
        assert plain["ranks"] == [] and "train_collectives" not in plain["whole"]
        for name in ("even", "second computes", "first computes", "second reads"):
            assert seen[rank][name]["weights"] == plain["weights"], name
            assert seen[rank][name]["losses"] == plain["losses"], name
    assert seen[0]["even"]["weights"] == seen[1]["even"]["weights"]


def test_one_process_shows_and_writes(seen: list[dict[str, Any]]) -> None:
    assert len(seen[0]["even"]["train"]) == STEPS // 2 and f"train {STEPS} steps" in seen[0]["even"]["said"]
    for run in seen[1].values():
        assert run["said"] == "" and run["train"] == run["ranks"] == []


def test_speed_is_that_of_all(seen: list[dict[str, Any]], times: float) -> None:
    """Both know the same tokens, those of both; a step of the slow run takes as long as the sleep at least."""
    run = seen[0]["second computes"]
    assert run["tokens"] == seen[1]["second computes"]["tokens"]
    for before, event in zip([0, *(e["tokens"] for e in run["train"])], run["train"], strict=False):
        seconds = (event["tokens"] - before) / event["tokens_per_second"]
        assert 1 < seconds / (2 * 2 * times * ASLEEP) < 10
    assert run["whole"]["train_tokens_per_second"] < run["tokens"] / (STEPS * 2 * times * ASLEEP)


def test_memory_is_that_of_who_holds_most(seen: list[dict[str, Any]]) -> None:
    for train, ranks in zip(seen[0]["even"]["train"], seen[0]["even"]["ranks"], strict=True):
        assert train["memory"] == max(ranks["memory"]) == ranks["memory"][train["memory_rank"]]


def test_the_model_is_left_as_it_was(seen: list[dict[str, Any]]) -> None:
    assert [run["hooks"] for rank in (0, 1) for run in seen[rank].values()] == [0] * 14
