"""Two hosts, each a network namespace with a cable between them: they train together, and one of them vanishes.

The same folder is on both, as on a cluster's file system. What is left of the run is that of one host, to the bit.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from launched import (
    STEPS,
    agent,
    exit_code,
    free_port,
    require_same_end,
    said,
    status,
    wait_until,
)

from forked import Forked
from interrupting import logged_losses
from launching import MARKS
from lmtrain.core.errors import ExitCode
from lmtrain.engine.checkpoints.read import newest

ADDRESS = {"a": "10.231.77.1", "b": "10.231.77.2"}
TIMEOUT = 6  # seconds: --ddp_timeout
SOON = 25  # seconds for a process to end of its own; what takes time is a machine with other work


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _flags() -> list[str] | None:
    """What ``unshare`` needs for a network namespace and a cable; None where there is no way to one.

    Root needs nothing more; others become root in a user namespace of their own, where the kernel lets them.
    """
    if sys.platform != "linux" or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        return None
    cable = ["ip", "link", "add", "cable0", "type", "veth", "peer", "cable1"]
    for flags in ([["-n"]] if os.geteuid() == 0 else []) + [["-r", "-n"]]:
        if not subprocess.run(["unshare", *flags, *cable], capture_output=True).returncode:
            return flags
    return None


FLAGS = _flags()
pytestmark = [
    *MARKS,
    pytest.mark.xdist_group("launched"),  # one undisturbed run for both files
    pytest.mark.usefixtures("nobody_is_left"),
    pytest.mark.skipif(FLAGS is None, reason="needs network namespaces, and unshare, nsenter and ip"),
]


class Hosts:
    """``a`` and ``b``, each a namespace that a sleeping process keeps."""

    def __init__(self) -> None:
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def _inside(self, host: str, *words: str) -> list[str]:
        users = ["-U", "--preserve-credentials"] if "-r" in (FLAGS or []) else []
        return ["nsenter", *users, "-n", "-t", str(self.processes[host].pid), *words]

    def start(self) -> None:
        enter: list[str] = []
        for host in ADDRESS:
            unshare = ["unshare", "-n"] if enter else ["unshare", *(FLAGS or [])]
            self.processes[host] = made = subprocess.Popen([*enter, *unshare, "sleep", "3600"])
            if "-r" in (FLAGS or []):  # both in one user namespace, or there is no cable from one to the other
                enter = ["nsenter", "-U", "--preserve-credentials", "-t", str(made.pid)]
            wait_until(partial(_is_asleep, made.pid), [], str, SOON)
        peer = ["name", "cable0", "netns", str(self.processes["b"].pid)]
        _run(*self._inside("a", "ip", "link", "add", "cable0", "type", "veth", "peer", *peer))
        for host, address in ADDRESS.items():
            _run(*self._inside(host, "ip", "link", "set", "lo", "up"))
            _run(*self._inside(host, "ip", "address", "add", f"{address}/24", "dev", "cable0"))
        self.connect(True)

    def connect(self, up: bool) -> None:
        for host in ADDRESS:
            _run(*self._inside(host, "ip", "link", "set", "cable0", "up" if up else "down"))

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        made.start()
        yield made
    finally:
        made.stop()


def start(folder: Path, hosts: Hosts, out: str) -> dict[str, Forked]:
    """torchrun on each; ``a`` keeps what they meet at."""
    port = free_port()
    patience = {"read_timeout": TIMEOUT, "timeout": 120, "last_call_timeout": 1}
    running = {}
    for host, keeper in hosts.processes.items():
        launch = {
            "min_nodes": 2, "max_nodes": 2, "nproc_per_node": 1, "rdzv_endpoint": f"{ADDRESS['a']}:{port}",
            "rdzv_configs": {**patience, "is_host": str(host == "a")}, "local_addr": ADDRESS[host],
        }  # fmt: skip
        running[host] = agent(folder, out, "--ddp_timeout", TIMEOUT, launch=launch, prefix=f"-{host}", HOST=keeper.pid)
        if host == "a":
            time.sleep(0.5)
    return running


def until_loss(folder: Path, out: str, count: int, running: dict[str, Forked]) -> None:
    wait_until(logged_losses(folder / out, count), list(running.values()), lambda: said(folder, out))


def worker(folder: Path, out: str, rank: int) -> int:
    return int((folder / f"{out}-pids" / str(rank)).read_text())


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _is_asleep(pid: int) -> bool:
    """Whether it has become the program that it is to be: until then it is on its way through namespaces."""
    return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def require_interrupted(folder: Path, out: str) -> int:
    """The step that the run goes on from."""
    now, found = status(folder, out), newest(folder / out)
    assert now["state"] == "interrupted" and "another process of this run is gone or does not answer" in now["reason"]
    assert found.checkpoint is not None and not found.passed_over and 0 < found.step < STEPS
    return found.step


def test_they_train_together_and_one_vanishes(straight: Path, hosts: Hosts) -> None:
    """Killed is ``a``, which has the first process and the store; then the cable is cut; one host ends the run."""
    out = "vanished"
    running = start(straight, hosts, out)
    until_loss(straight, out, 6, running)
    wait_until(lambda: newest(straight / out).step > 0, list(running.values()), lambda: said(straight, out))
    workers = [worker(straight, out, rank) for rank in range(2)]
    on_a = int(parent(workers[1]) == running["a"].pid)  # the agents draw who is first
    began = time.monotonic()
    for pid in (running["a"].pid, workers[on_a]):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(workers[1 - on_a]), [], lambda: said(straight, out), SOON)
    assert running["b"].wait(SOON) == 1, said(straight, out)
    told = said(straight, out)
    assert "another process of this run is gone or does not answer" in told and "a fault of lmtrain" not in told, told
    assert exit_code(straight, out, 1 - on_a) == ExitCode.INTERRUPTED
    print(f"a killed: b ended after {time.monotonic() - began:.1f} s")
    step = require_interrupted(straight, out)

    running = start(straight, hosts, out)
    until_loss(straight, out, 6 + 10, running)
    cut_off = [worker(straight, out, rank) for rank in range(2)]
    hosts.connect(False)
    began = time.monotonic()
    try:
        wait_until(lambda: all(map(gone, cut_off)), [], lambda: said(straight, out), TIMEOUT + SOON)
        assert [exit_code(straight, out, rank) for rank in range(2)] == [ExitCode.INTERRUPTED] * 2
        print(f"cable cut: both ended after {time.monotonic() - began:.1f} s")
        assert running["a"].wait(SOON) == 1, said(straight, out)
    finally:  # torchrun on b waits for a store that does not answer, until the kernel gives the connection up
        running["b"].kill()
        hosts.connect(True)
    told = said(straight, out)
    assert f"goes on from step {step}" in told and "a fault of lmtrain" not in told, told
    step = require_interrupted(straight, out)

    assert agent(straight, out, prefix="-alone").wait(300) == 0, said(straight, out)
    assert f"goes on from step {step}" in said(straight, out)
    require_same_end(straight, out)
