"""Where the processes of a launcher meet: they find each other in bounded time, and then wait without a limit.

``--ddp_timeout`` is for exchanges in training. One process may prepare its data for hours longer than another, on a
machine of its own or with a slower disk, and none may be given up for that. So whoever is ready waits here, at the
address that the launcher gave them all, and not in an exchange. What ends one of them is told here to those that wait.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any, Final

import torch

from lmtrain.core.console import Say, say
from lmtrain.core.errors import Interrupted, Lost, OwnResultWrong, UserError
from lmtrain.core.launching import processes, rank
from lmtrain.core.problem_block import Problem
from lmtrain.engine.distributed.interface import choose_interface
from lmtrain.engine.distributed.lives import agree_on_life
from lmtrain.engine.distributed.store import LOOK_EVERY, PATIENCE, PATIENCE_S, address, connect

_ADDRESS: Final = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
_WORTH_SAYING = 10.0  # seconds of waiting
_LINGER = 5.0  # seconds that who fails stays for the others to hear why
_stores: list[Any] = []  # of this process, once it has one: the first process's serves the others, and has to stay
_lives: list[str] = []  # the name of this start of all processes: what they leave in the store bears it
_visits, _comparisons = count(), count()  # all processes wait at the same places, in the same order


def meet(seconds: float | None = None) -> None:
    """Find the other processes, at the beginning: each is there a few imports after the launcher started it.

    Raises :class:`UserError` when they are not all there within ``LMTRAIN_MEETING_TIMEOUT`` seconds, or within 300,
    or ``seconds`` (``--ddp_timeout``) where that is more. Alone, and from the second time on, it does nothing.
    """
    if not _are_several() or _stores:
        return
    _join(_patience(seconds), say)


def wait_for_all(say: Say = say) -> None:
    """Return when all processes have come here, however long that takes; signals are taken meanwhile.

    Raises what :func:`telling_others` was told by another one.
    """
    if not _are_several():
        return
    if not _stores:
        _join(None, say)
    _wait(str(next(_visits)), say)


def compared(name: str, text: str, say: Say = say) -> dict[int, str] | None:
    """None when every process came with the same ``text`` for ``name``; else the texts by rank: all on the first
    process, and on each other one the first's and its own. It waits as :func:`wait_for_all`; :func:`meet` first."""
    if not _are_several():
        return None
    store, world, me = _stores[0], processes(), rank()
    name = f"{name} {next(_comparisons)}"
    same = _place(f"{name}/{hashlib.sha256(text.encode()).hexdigest()}")
    store.set(_place(f"{name}/of/{me}"), text)
    store.add(same, 1)
    wait_for_all(say)
    if store.add(same, 0) == world:
        return None
    return {n: store.get(_place(f"{name}/of/{n}")).decode() for n in (range(world) if me == 0 else (0, me))}


def told_by_the_first(text: str, say: Say = say) -> str:
    """The first process's ``text``, on each. It waits as :func:`wait_for_all`; :func:`meet` first."""
    if not _are_several():
        return text
    place = _place(f"told {next(_comparisons)}")
    if rank() == 0:
        _stores[0].set(place, text)
    wait_for_all(say)
    return str(_stores[0].get(place).decode())


@contextmanager
def telling_others() -> Iterator[None]:
    """Let a :class:`UserError`, an interruption or a fault in the block end the processes that wait for this one too.

    Those raise the same, with this process's number in front. One that raises a :class:`UserError` stays a few seconds
    for the others: a launcher ends them all when the first is gone, and the first process is the one that says it.
    """
    try:
        yield
    except UserError as error:
        _tell("input", [[problem.text, problem.flag] for problem in error.problems])
        if error.heard is None:  # it may come through two such blocks
            error.heard = leave_the_meeting(_LINGER)
        raise
    except Interrupted as error:
        if not error.together and not isinstance(error, Lost):  # a store on a lost machine would not answer either
            _tell("interrupted", str(error))
        raise
    except Exception as error:
        _tell("fault", f"{type(error).__name__}: {error}")
        raise


def begun_before(run: str) -> bool:
    """Whether an earlier life of this launch (``torchrun --max-restarts``) has begun to write ``run``."""
    store = _launchers()
    return store is not None and bool(store.check([f"lmtrain/begun/{run}"]))


def note_begun(run: str) -> None:
    """From now on the lives to come find :func:`begun_before` true."""
    store = _launchers()
    if store is not None:
        store.set(f"lmtrain/begun/{run}", "")


def _launchers() -> Any:
    """The store that outlives this process, where there is one."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or not torch.distributed.is_available():
        return None
    return _stores[0] if _stores else connect(PATIENCE_S)


def make_group(backend: str, seconds: float) -> None:
    """The processes' group, in which an exchange may take so many ``seconds``; alone it does nothing.

    ``TrainingArguments`` makes one where there is none, but on CPUs without the limit (transformers 5.23), and
    everywhere by torch's own way to a store, which finds what an earlier life left where torchrun started anew.
    """
    if _are_several() and not torch.distributed.is_initialized():
        if not _stores:
            _join(None, say)
        limit = timedelta(seconds=seconds)
        store = torch.distributed.PrefixStore(_place("group"), _stores[0].clone())
        store.set_timeout(limit)
        torch.distributed.init_process_group(backend, store=store, rank=rank(), world_size=processes(), timeout=limit)


def _are_several() -> bool:
    return all(os.environ.get(name) for name in _ADDRESS) and processes() > 1 and torch.distributed.is_available()


def _place(name: str) -> str:
    """torchrun's store outlives the processes that it starts anew."""
    return f"lmtrain/{_lives[0]}/{name}"


def _patience(seconds: float | None) -> float:
    if given := os.environ.get(PATIENCE):
        with suppress(ValueError):
            return float(given)
        raise UserError(f"{PATIENCE} is {given!r}, which is no number of seconds")
    return max(PATIENCE_S, seconds or 0)


def _join(limit: float | None, say: Say) -> None:
    """Find the others, for so many seconds; each has then come, and knows what all leave in the store from others'."""
    store, began, said = connect(limit), time.monotonic(), False

    def waiting(missing: list[int]) -> None:
        nonlocal said
        waited = time.monotonic() - began
        if limit is not None and waited > limit:
            raise UserError(_missing(waited, missing))
        if missing and not said and waited > _WORTH_SAYING:
            said = True
            here = processes() - len(missing)
            say("processes", f"{here} of {processes()} are ready; waiting for the others, which the launcher starts")

    choose_interface(say)
    _lives.append(agree_on_life(store, rank(), processes(), waiting))
    _stores.append(store)


def _wait(name: str, say: Say) -> None:
    store, place, world = _stores[0], _place(name), processes()
    began, said = time.monotonic(), False
    store.add(place, 1)
    while (ready := store.add(place, 0)) < world:
        if store.check([_place("failed")]):
            _raise_what_was_told(json.loads(store.get(_place("failed")).decode()))
        if not said and time.monotonic() - began > _WORTH_SAYING:
            said = True
            say("processes", f"{ready} of {world} are ready; waiting for the others, which still prepare")
        time.sleep(LOOK_EVERY)


def _missing(waited: float, missing: list[int]) -> str:
    world = processes()
    if not missing:
        return f"not all of {world} processes came to {address()} within {waited:.0f} s"
    return (
        f"{world - len(missing)} of {world} processes came to {address()} within {waited:.0f} s, and not "
        f"{ranks(missing)}: look at what {'they say' if len(missing) > 1 else 'it says'}; under SLURM all are started "
        f"by srun; {PATIENCE} is how many seconds to wait"
    )


def ranks(numbers: list[int]) -> str:
    """``rank 3``, ``ranks 0-2, 5``.

    >>> ranks([3]), ranks([0, 1, 2, 5])
    ('rank 3', 'ranks 0-2, 5')
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"rank{'s' if len(numbers) > 1 else ''} {shown}"


def _tell(kind: str, what: Any) -> None:
    """The first that fails is heard."""
    if _stores and _are_several():
        with suppress(RuntimeError):  # the process that serves the store may be gone
            told = json.dumps({"rank": rank(), "kind": kind, "what": what})
            _stores[0].compare_set(_place("failed"), "", told)


def _raise_what_was_told(told: dict[str, Any]) -> None:
    number, what = told["rank"], told["what"]
    if told["kind"] == "input":
        raise UserError(problems=tuple(Problem(f"process {number}: {text}", flag) for text, flag in what))
    if told["kind"] == "interrupted":
        raise Interrupted(f"process {number}: {what}")
    raise OwnResultWrong(f"process {number} failed ({what}); it says more itself")


def leave_the_meeting(seconds: float) -> bool | None:
    """Whether all processes came here, within ``seconds``; None where there are no others."""
    if not (_stores and _are_several()):
        return None
    until, others = time.monotonic() + seconds, processes() - 1
    try:
        _stores[0].add(_place("left"), 1)
        if not _counted("left", others + 1, until):
            return False
        if rank():
            _stores[0].add(_place("heard"), 1)
        else:  # it may serve the store, which the others have looked at for the last time then
            _counted("heard", others, until)
    except RuntimeError:  # the process that serves the store is gone
        return False
    if torch.distributed.is_initialized():  # else its threads abort a process that exits
        gc.collect()
        torch.distributed.destroy_process_group()
    if rank():
        time.sleep(2 * LOOK_EVERY)  # the first one says it now
    return True


def _counted(name: str, number: int, until: float) -> bool:
    """Whether so many processes came to ``name`` by then."""
    while _stores[0].add(_place(name), 0) < number:
        if time.monotonic() > until:
            return False
        time.sleep(LOOK_EVERY / 4)
    return True
