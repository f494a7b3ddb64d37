"""Which life of a group of processes this is, where a launcher starts them again after one has died.

``torchrun --max-restarts`` keeps the store that processes meet at while it starts them anew. What the dead ones left
there then looks as if the new ones had written it: addresses at which nobody listens any more, counts of those who
have arrived. The number of restarts does not tell lives apart either, for each host counts its own
(https://github.com/pytorch/pytorch/issues/135712 and 108158; so it is in torch 2.13). So the processes agree on a name:

.. code-block:: text

    each        here/RANK   = a number drawn at random          replaces that of an earlier life
    the first   offered     = all those numbers, in order       again whenever one of them has changed
    each        agrees/RANK = the name that follows from them   where its own number is right
    the first   goes        = the name                          once all have agreed to it

The name depends on a number of everybody's, so nothing that an earlier life left can be equal to it.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

_LOOK_EVERY: Final = 0.1  # seconds
Waiting = Callable[[list[int]], None]


def agree_on_life(store: Any, rank: int, world: int, waiting: Waiting) -> str:
    """A name that all ``world`` processes at ``store`` give to this start of theirs, and no other start has.

    Returns when the last of them has come. Until then ``waiting`` is called again and again with the ranks that are
    missing, as far as this one can tell; what it raises ends the waiting.
    """
    mine = secrets.token_hex(8)
    store.set(f"lmtrain/here/{rank}", mine)
    return _lead(store, world, waiting) if rank == 0 else _follow(store, rank, mine, waiting)


def _lead(store: Any, world: int, waiting: Waiting) -> str:
    offered: list[str] = []
    while True:
        here = _read(store, [f"lmtrain/here/{rank}" for rank in range(world)])
        if here != offered and all(here):
            offered = here
            store.set("lmtrain/offered", ",".join(offered))
        agreed = _read(store, [f"lmtrain/agrees/{rank}" for rank in range(1, world)])
        missing = [rank for rank, name in enumerate(agreed, 1) if not here[rank] or name != _name(offered)]
        if offered and not missing:
            store.set("lmtrain/goes", _name(offered))
            return _name(offered)
        waiting(missing)
        time.sleep(_LOOK_EVERY)


def _follow(store: Any, rank: int, mine: str, waiting: Waiting) -> str:
    agreed = ""
    while True:
        offered, goes = _read(store, ["lmtrain/offered", "lmtrain/goes"])
        numbers = offered.split(",")
        if rank < len(numbers) and numbers[rank] == mine:
            name = _name(numbers)
            if name == agreed == goes:
                return agreed
            if name != agreed:
                agreed = name
                store.set(f"lmtrain/agrees/{rank}", agreed)
        waiting([] if agreed else [0])
        time.sleep(_LOOK_EVERY)


def _read(store: Any, keys: Sequence[str]) -> list[str]:
    """What stands under ``keys``; nothing where one is missing, for which a store itself would wait."""
    if store.check(list(keys)):
        return [value.decode() for value in store.multi_get(list(keys))]
    return [store.get(key).decode() if store.check([key]) else "" for key in keys]


def _name(numbers: Sequence[str]) -> str:
    return hashlib.sha256(",".join(numbers).encode()).hexdigest()[:16]
