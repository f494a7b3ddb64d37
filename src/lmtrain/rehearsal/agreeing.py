"""Several processes rehearse one run: what one of them finds, all of them raise, and none is left waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from accelerate.utils import broadcast_object_list, gather_object

from lmtrain.core.errors import Interrupted, Problems

_T = TypeVar("_T")


class Attempt:
    """What :meth:`Together.trying` was entered for."""

    went_well = False


class Together:
    """Problems of all processes. ``world`` 1: of this one."""

    def __init__(self, world: int, rank: int) -> None:
        self.problems = Problems()
        self._world, self._rank = world, rank
        self._crash: BaseException | None = None

    @property
    def is_first(self) -> bool:
        return self._rank == 0

    @contextmanager
    def trying(self) -> Iterator[Attempt]:
        """Take what is raised inside, to be raised by :meth:`agree`. Nothing inside may wait for another process."""
        attempt = Attempt()
        try:
            with self.problems.collect():
                yield attempt
                attempt.went_well = True
        except (Exception, Interrupted) as error:
            if self._world == 1:
                raise
            self._crash = self._crash or error

    def agree(self, went_well: bool = True) -> bool:
        """Whether it ``went_well`` on all processes; each then knows the problems of all. Raises what is no problem of
        the user's, where there is none."""
        if self._world == 1:
            return went_well
        crash = self._crash and (type(self._crash).__name__, str(self._crash), isinstance(self._crash, Interrupted))
        mine: list[Any] = [([(p.text, p.flag) for p in self.problems], crash, went_well)]
        everyone = gather_object(mine)
        crashes = [(rank, *crash) for rank, (_, crash, _) in enumerate(everyone) if crash]
        for rank, _, text, was_interrupted in crashes:
            if was_interrupted:  # whatever else there is
                raise self._crash if rank == self._rank and self._crash else Interrupted(f"process {rank}: {text}")
        for problems, _, _ in everyone:
            for text, flag in problems:
                self.problems.add(text, flag=flag)
        if not self.problems and self._crash is not None:
            raise self._crash
        if not self.problems and crashes:
            rank, kind, text, _ = crashes[0]
            raise RuntimeError(f"process {rank} failed: {kind}: {text}")
        return all(well for _, _, well in everyone)

    def said_by_the_first(self, value: _T) -> _T:
        """The first process's ``value``, for all: what goes by the clock has to be decided by one."""
        if self._world == 1:
            return value
        told: list[Any] = [value]
        broadcast_object_list(told)
        agreed: _T = told[0]
        return agreed
