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


def _why_not() -> str:
    """Why there can be no hosts here; empty where there can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "needs ip of iproute2"
    if os.geteuid() != 0:
        return "network namespaces are made by root"
    name = f"lmtrain-{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return f"no network namespaces: {tried.stderr.strip()}" if tried.returncode else ""


REASON = _why_not()
pytestmark = [*MARKS, pytest.mark.usefixtures("nobody_is_left"), pytest.mark.skipif(bool(REASON), reason=REASON)]


class Hosts:
    """``a`` and ``b``."""

    def __init__(self) -> None:
        self.names = {host: f"lmtrain-{os.getpid()}-{host}" for host in ADDRESS}

    def start(self) -> None:
        for name in self.names.values():
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        ends = [["name", "cable0", "netns", name] for name in self.names.values()]
        _run("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for host, name in self.names.items():
            _run("ip", "-n", name, "address", "add", f"{ADDRESS[host]}/24", "dev", "cable0")
        self.connect(True)

    def connect(self, up: bool) -> None:
        for name in self.names.values():
            _run("ip", "-n", name, "link", "set", "cable0", "up" if up else "down")

    def stop(self) -> None:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


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
    for host, name in hosts.names.items():
        launch = {
            "min_nodes": 2, "max_nodes": 2, "nproc_per_node": 1, "rdzv_endpoint": f"{ADDRESS['a']}:{port}",
            "rdzv_configs": {**patience, "is_host": str(host == "a")}, "local_addr": ADDRESS[host],
        }  # fmt: skip
        running[host] = agent(folder, out, "--ddp_timeout", TIMEOUT, launch=launch, prefix=f"-{host}", HOST=name)
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


def network(pid: int) -> str:
    """The namespace that a process is in."""
    return str(Path(f"/proc/{pid}/ns/net").readlink())


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
    workers = [worker(straight, out, rank) for rank in range(2)]
    on_a = int(network(workers[1]) == network(running["a"].pid))  # the agents draw who is first
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
