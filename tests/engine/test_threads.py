"""Threads: torch's own number, unless it is known to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmtrain.engine import threads
from lmtrain.engine.threads import choose_threads


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(threads, "_QUOTA", quota)
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


@pytest.mark.parametrize(("quota", "count"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 8)])
def test_a_containers_quota_counts(eight_cpus: Path, quota: str, count: int) -> None:
    eight_cpus.write_text(quota)
    assert choose_threads(8, {})[0] == count
