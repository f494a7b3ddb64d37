"""Parts as tasks of Ray (``pip install 'lmtrain[ray]'``): on the cluster of ``RAY_ADDRESS``, else on this machine.

The machines of a cluster have to see the text and the folder of the store under the same paths.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from lmtrain.core.errors import UserError
from lmtrain.data.preparing.workers import Job, Outcome, Submit, Task, Underway, do, is_ready, take

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
def ray_workers(job: Job, workers: int) -> Iterator[Submit]:
    """Tasks of one processor each. A Ray that this process has joined already is used, and left running."""
    ray = imported()
    ours = not ray.is_initialized()
    if ours:
        _start(ray, workers)
    name, shared = job.name, [ray.put(job)]  # in a list: a bare reference would be unpacked for every task
    remote = ray.remote(num_cpus=1, max_retries=0)(_run)

    @dataclass(frozen=True)
    class Submitted:
        reference: Any

        def ready(self) -> bool:
            return bool(ray.wait([self.reference], timeout=0)[0])

        def result(self) -> Outcome:
            try:
                found: Outcome = ray.get(self.reference)
                return found
            except ray.exceptions.WorkerCrashedError as error:
                raise UserError(
                    "a task was ended from outside, perhaps because memory ran out; run the same command again with "
                    "fewer: --preprocessing_num_workers",
                    flag="--engine",
                ) from error

    def submit(task: Task) -> Underway:
        return Submitted(remote.remote(name, shared, replace(task, place=task.place.absolute())))

    try:
        yield submit
    finally:
        if ours:
            ray.shutdown()


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
