"""Threads: torch's own number, unless it is known to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmtrain.core import children
from lmtrain.engine.speed.threads import choose_threads, threads_again, threads_for


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(children.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(children, "_QUOTA", quota)
    return quota


def test_torchs_choice_is_kept() -> None:
    assert choose_threads(8, {}) == (8, "torch's own choice")
    assert choose_threads(1, {})[0] == 1  # someone asked for one


def test_what_the_user_says_is_kept() -> None:
    assert choose_threads(3, {"OMP_NUM_THREADS": "3"}) == (3, "OMP_NUM_THREADS")
    assert choose_threads(1, {"OMP_NUM_THREADS": "1"}) == (1, "OMP_NUM_THREADS")


def test_torchruns_single_thread_is_not_taken_for_a_wish() -> None:
    environment = {"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2"}
    assert choose_threads(1, environment)[0] == 4
    assert choose_threads(8, {"WORLD_SIZE": "8", "SLURM_PROCID": "0", "SLURM_NNODES": "2"})[0] == 2


@pytest.mark.parametrize(("quota", "count"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 8)])
def test_a_containers_quota_counts(eight_cpus: Path, quota: str, count: int) -> None:
    eight_cpus.write_text(quota)
    assert choose_threads(8, {})[0] == count
    assert children.cores() == count, "and as many processes prepare or filter"


def test_a_run_goes_on_with_the_threads_that_it_began_with(eight_cpus: Path) -> None:
    """Where what they were chosen for is the same; they are not this machine's otherwise."""
    begun = {"threads": 5, "threads_for": threads_for({})}
    assert threads_again(begun, 8, {}) == (5, None)
    assert threads_again({}, 8, {}) == (8, None)
    for environment, number in (({"LOCAL_WORLD_SIZE": "4"}, 2), ({"OMP_NUM_THREADS": "3"}, 3)):
        found, line = threads_again(begun, number, environment)
        assert found == number and line is not None and f"computes with {number} instead of 5 threads" in line
    eight_cpus.write_text("200000 100000")
    found, line = threads_again({"threads": 64, "threads_for": {**threads_for({}), "cpus": 64}}, 8, {})
    assert found == 2 and "2 instead of 64 threads (2 CPUs may be used)" in str(line)
    assert threads_again({"threads": 2, "threads_for": {**threads_for({}), "cpus": 64}}, 2, {}) == (2, None)


def test_of_runs_that_did_not_note_what_they_were_chosen_for(eight_cpus: Path) -> None:
    assert threads_again({"threads": 5}, 8, {}) == (5, None)
    assert threads_again({"threads": 64}, 8, {})[0] == 8


def test_torchruns_single_thread_is_the_same_wish_as_none() -> None:
    environment = {"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "1"}
    assert threads_for(environment) == threads_for({})
