"""Processes that a launcher starts anew at a store that is still full of the dead ones' traces."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import torch

from lmtrain.engine.distributed.lives import agree_on_life

WORLD = 4


@pytest.fixture
def store() -> torch.distributed.TCPStore:
    return torch.distributed.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=5)
    )


def patient(missing: list[int]) -> None:
    pass


def live(store: torch.distributed.TCPStore, order: list[int]) -> set[str]:
    """The names that the processes agree on when they come in this ``order``, each a moment after the other."""
    names: dict[int, str] = {}

    def come(rank: int) -> None:
        names[rank] = agree_on_life(store.clone(), rank, WORLD, patient)

    threads = [threading.Thread(target=come, args=(rank,), daemon=True) for rank in order]
    for thread in threads:
        thread.start()
        thread.join(0.15)
    for thread in threads:
        thread.join(20)
    assert sorted(names) == list(range(WORLD)), "somebody waits for ever"
    return set(names.values())


def test_each_life_has_a_name_of_its_own(store: torch.distributed.TCPStore) -> None:
    """Whoever comes first finds the names, numbers and agreements of the life before."""
    lives = [live(store, order) for order in ([0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3], [2, 0, 3, 1])]
    assert all(len(names) == 1 for names in lives), "all agree"
    assert len(set.union(*lives)) == len(lives), "and never to an old one"


class _GivenUpError(Exception):
    pass


@pytest.mark.parametrize(("rank", "seen"), [(0, [2, 3]), (1, [])])
def test_who_is_missing(rank: int, seen: list[int], store: torch.distributed.TCPStore) -> None:
    """In a second life to which only two have come yet, though the store knows four."""
    live(store, [0, 1, 2, 3])
    reports: list[list[int]] = []

    def waiting(missing: list[int]) -> None:
        reports.append(missing)
        if len(reports) == 20:
            raise _GivenUpError

    def other() -> None:
        with pytest.raises(_GivenUpError):
            agree_on_life(store.clone(), 1 - rank, WORLD, waiting_too)

    def waiting_too(missing: list[int]) -> None:
        if len(reports) == 20:
            raise _GivenUpError

    thread = threading.Thread(target=other)
    thread.start()
    with pytest.raises(_GivenUpError):
        agree_on_life(store.clone(), rank, WORLD, waiting)
    thread.join()
    assert reports[-1] == seen
