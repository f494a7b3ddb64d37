"""What a checkpoint costs: how long training stands still for it, and when it counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes a second: ``disk`` that one machine writes, hashed and flushed, and reads again; ``memory`` that one device
    copies; ``shared`` that all machines together can write, None where each has a disk of its own."""

    disk: float
    memory: float
    shared: float | None = None

    def rate(self, machines: int) -> float:
        """Of so many machines that write or read together."""
        together = machines * self.disk
        return together if self.shared is None else min(together, self.shared)


@dataclass(frozen=True, slots=True)
class Save:
    """Training stands still for ``pause`` seconds; after ``write`` more the checkpoint is on disk and counts."""

    size: float
    pause: float
    write: float

    @property
    def seconds(self) -> float:
        return self.pause + self.write


def whole(size: float, storage: Storage, *, background: bool = True) -> Save:
    """One process writes it all, as under DDP. ``background``: from a copy, while training goes on."""
    write = size / storage.rate(1)
    return Save(size, size / storage.memory, write) if background else Save(size, write, 0.0)


def sharded(size: float, storage: Storage, devices: int, machines: int, *, background: bool = False) -> Save:
    """Every device writes its part (``torch.distributed.checkpoint``)."""
    write = size / storage.rate(machines)
    return Save(size, size / devices / storage.memory, write) if background else Save(size, write, 0.0)


def restart(size: float, storage: Storage, machines: int, *, start: float, is_sharded: bool) -> float:
    """Seconds from a failure to the next step: ``start`` until the programs run again, and the checkpoint read, by
    every machine whole or each its part."""
    each = size if not is_sharded else size / machines
    return start + machines * each / storage.rate(machines)
