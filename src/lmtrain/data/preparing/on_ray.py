"""Parts as tasks of Ray (``pip install 'lmtrain[ray]'``): on the cluster of ``RAY_ADDRESS``, else on this machine.

The machines of a cluster have to see the text and the folder of the store under the same paths.

Plain tasks, and not Ray Data: its blocks of rows would carry every token through the object store to one writer, and
promise neither an order nor where a document is cut. Here each task reads its stretch of the sources by itself and
leaves a file; what travels is a record of a few figures.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from lmtrain.core.children import cores
from lmtrain.core.errors import UserError
from lmtrain.core.files import NO_ROOM
from lmtrain.data.preparing.workers import Job, Outcome, Submit, Task, do, is_ready, take

LIVES: Final = 4
"""How often a task is begun before its failing ends the preparation."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # tasks without accelerators; else it warns of a change to come
    "RAY_DEDUP_LOGS": "0",
}


def imported() -> Any:
    """The package; raises :class:`UserError` when it is not installed."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UserError("needs the package ray: pip install 'lmtrain[ray]'", flag="--engine") from error
    return ray


@contextmanager
def joined(asked: int | None, useful: Callable[[int], int]) -> Iterator[int]:
    """How many parts to have made at once: ``asked``, or one a processor of the cluster, or of this machine.

    A Ray that this process has joined already is used, and left running; the cluster of ``RAY_ADDRESS`` is left
    running too. One that is started here has no more processes than ``useful`` says that many can be.
    """
    ray = imported()
    ours = not ray.is_initialized()
    if ours:
        _start(ray, useful(asked or cores()))
    try:
        yield useful(asked or max(1, int(ray.cluster_resources().get("CPU", 0))))
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def ray_workers(job: Job) -> Iterator[Submit]:
    """Tasks of one processor each, in the Ray that this process has :func:`joined`.

    A task whose machine or process is lost, or that a machine cannot do, is begun again where Ray finds room, in a
    folder of its own. A full disk is what it is at once: all machines write to the same one.
    """
    ray = imported()
    name, shared = job.name, [ray.put(job)]  # in a list: a bare reference would be unpacked for every task
    # Ray itself would begin a lost task anew in the same folder, which the lost one may still write to.
    remote = ray.remote(num_cpus=1, max_retries=0)(_run)

    class Submitted:
        def __init__(self, task: Task) -> None:
            self._task, self._lives = task, 1
            self.place = task.place
            self._begin()

        def _begin(self) -> None:
            task = replace(self._task, place=self.place.absolute())
            self._future: Future[Outcome] = remote.remote(name, shared, task).future()

        def ready(self) -> bool:
            return self._future.done()

        def result(self) -> Outcome:
            while True:
                try:
                    return self._future.result()
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None)
                    if isinstance(cause, OSError) and cause.errno in NO_ROOM:
                        raise OSError(cause.errno, cause.strerror, cause.filename) from error
                    if (said := _explained(ray, error)) is None:
                        raise
                    if self._lives == LIVES:
                        raise UserError(said, flag="--engine") from error
                self._lives += 1
                self.place = self._task.place.with_name(f"{self._task.place.name}-{self._lives}")
                self.place.mkdir()
                self._begin()

    yield Submitted


def _explained(ray: Any, error: Exception) -> str | None:
    """What a task has failed of so many times, for the user; None for a fault of the program."""
    errors = ray.exceptions
    if isinstance(error, errors.RayTaskError):
        cause = error.cause
        if not isinstance(cause, OSError | ImportError):
            return None
        where = re.search(r"\bip=([\w.:]+)", str(error))  # it has the address in its words alone
        return (
            f"a machine of the cluster{f' ({where[1]})' if where else ''} could not do a task "
            f"({type(cause).__name__}: {cause}); all of them have to see the text and the cache under the same paths, "
            "and need the same lmtrain with the same packages"
        )
    if isinstance(error, errors.OutOfMemoryError):
        return "memory ran out on a machine of the cluster; run it again with fewer: --preprocessing_num_workers"
    return (
        f"a task was ended from outside {LIVES} times ({type(error).__name__}), perhaps because memory ran out (run it "
        "again with fewer: --preprocessing_num_workers) or machines were lost"
    )


def _run(name: str, shared: list[Any], task: Task) -> Outcome:
    """A task; the process that runs it takes the job once."""
    if not is_ready(name):
        take(imported().get(shared[0]))
    return do(task)


def _start(ray: Any, workers: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(**quiet)
        except ConnectionError as error:
            raise UserError(
                f"no Ray answers at RAY_ADDRESS={os.environ['RAY_ADDRESS']}; start it, or leave the variable away to "
                "use this machine alone",
                flag="--engine",
            ) from error
    else:
        ray.init(
            address="local",
            num_cpus=workers,
            num_gpus=0,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
