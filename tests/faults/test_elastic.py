"""Processes die under torchrun, which starts them anew: the run goes on by itself to the undisturbed run's bits."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
from launched import (
    STEPS,
    agent,
    environment,
    exit_code,
    free_port,
    require_same_end,
    said,
    status,
    wait_until,
    words,
)

from forked import Forked
from interrupting import logged_losses
from launching import MARKS
from lmtrain.core.errors import ExitCode, Lost
from lmtrain.core.files import read_json
from lmtrain.engine.checkpoints.read import newest
from lmtrain.engine.runs.run_folder import RunFolder

pytestmark = [
    *MARKS,
    pytest.mark.xdist_group("launched"),  # one undisturbed run for both files
    pytest.mark.usefixtures("nobody_is_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="processors are chosen by number"),
]


def test_whatever_they_were_doing_when_they_died(straight: Path) -> None:
    """Before they met, before the first checkpoint, in the third save, in an evaluation; in the fifth life none.

    What was in the folder before is done away with once, and not again in each life.
    """
    shutil.copytree(straight / "straight", straight / "killed")
    lives = "0:1:start 1:1:step 2:0:save 3:1:evaluation"
    run = agent(straight, "killed", "--overwrite_output_dir", launch={"max_restarts": 4}, DIES=lives)
    assert run.wait(400) == 0, said(straight, "killed")
    told = said(straight, "killed")
    assert told.count("exitcode: -9") == 4 and "a fault of lmtrain" not in told, told
    assert "starts over: it stopped before there was a checkpoint" in told
    assert re.findall(r"goes on from step (\d+)", told) == ["8", "16"], told
    require_same_end(straight, "killed")


def test_torchrun_itself(straight: Path) -> None:
    """The command as it is typed, with processes that import all of it; one of them is killed from outside. Each life
    meets at a place of its own, as docs/when_processes_die.md says for GPUs."""
    launcher = "-m torch.distributed.run --standalone --nproc_per_node 2 --max-restarts 2 -m lmtrain"
    out = straight / "typed"
    run = Forked(
        [*launcher.split(), *words(straight, "typed")],
        env=environment(straight, "typed", TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"), said=straight / "typed.said",
    )  # fmt: skip
    os.sched_setaffinity(run.pid, sorted(os.sched_getaffinity(0))[:2])  # a thread for each process
    wait_until(logged_losses(out, 10), [run], lambda: said(straight, "typed"))
    os.kill(process_of(out, 1), signal.SIGKILL)
    assert run.wait(300) == 0, said(straight, "typed")
    assert "goes on from step 8" in said(straight, "typed")
    require_same_end(straight, "typed")


def process_of(run: Path, rank: int) -> int:
    """Its number, as its log tells."""
    return int(re.findall(r"==== start: .*, pid (\d+)", (run / "logs" / f"rank-{rank}.log").read_text())[-1])


def test_a_signal_to_one_of_two_launchers_stops_all_with_one_checkpoint(straight: Path) -> None:
    port = free_port()
    both = {"min_nodes": 2, "max_nodes": 2, "nproc_per_node": 1, "rdzv_endpoint": f"localhost:{port}"}
    agents = [agent(straight, "asked", launch=both, prefix=f"-{n}") for n in range(2)]
    wait_until(logged_losses(straight / "asked", 6), agents, lambda: said(straight, "asked"))
    agents[1].send_signal(signal.SIGTERM)
    assert [one.wait(200) for one in agents] == [1, 1], said(straight, "asked")  # torch's code, whatever a worker's
    told, found = said(straight, "asked"), newest(straight / "asked")
    assert [exit_code(straight, "asked", rank) for rank in range(2)] == [ExitCode.INTERRUPTED] * 2
    assert "the same command goes on" in told
    now = status(straight, "asked")
    assert now["state"] == "interrupted" and now["step"] == found.step and f"step {found.step}" in now["reason"]
    assert 6 <= found.step < STEPS and not found.passed_over
    assert agent(straight, "asked").wait(300) == 0, said(straight, "asked")
    require_same_end(straight, "asked")


def test_a_signal_to_their_launcher_stops_both_after_the_same_step(straight: Path) -> None:
    """torchrun makes 1 of the workers' 75; the run's status says what happened."""
    run = agent(straight, "told")
    wait_until(logged_losses(straight / "told", 3), [run], lambda: said(straight, "told"))
    run.send_signal(signal.SIGTERM)
    assert run.wait(120) == 1, said(straight, "told")
    assert [exit_code(straight, "told", rank) for rank in range(2)] == [ExitCode.INTERRUPTED] * 2
    found = newest(straight / "told")
    assert status(straight, "told")["state"] == "interrupted"
    assert found.checkpoint is not None and not found.passed_over


def test_nobody_at_the_rendezvous(straight: Path) -> None:
    """torchrun ends before there is a process of ours; what it says stands in docs/when_processes_die.md."""
    nobody = {"rdzv_endpoint": f"127.0.0.1:{free_port()}", "rdzv_configs": {"is_host": "false", "read_timeout": 1}}
    run = agent(straight, "nowhere", launch={"min_nodes": 2, "max_nodes": 2, **nobody})
    assert run.wait(120) == 1
    assert "The connection to the C10d store has failed" in said(straight, "nowhere")
    assert not (straight / "nowhere").exists()


def test_who_is_left_says_how_it_ended_where_the_first_was_killed(tmp_path: Path) -> None:
    """And only then: a first process that lives holds its lock, and says it itself."""
    with RunFolder(tmp_path) as first:
        first.status("training", step=7)
        with pytest.raises(Lost), RunFolder(tmp_path, writes=False):
            raise Lost("the first does not answer")
        assert read_json(tmp_path / "status.json")["state"] == "training"
    with pytest.raises(Lost), RunFolder(tmp_path, writes=False):
        raise Lost("the first is gone")
    now = read_json(tmp_path / "status.json")
    assert (now["state"], now["step"], now["reason"]) == ("interrupted", 7, "the first is gone")
    with pytest.raises(Lost), RunFolder(tmp_path, writes=False):
        raise Lost("another one says it later")
    assert read_json(tmp_path / "status.json")["reason"] == "the first is gone"
