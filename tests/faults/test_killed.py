"""``kill -9`` at random moments: the run goes on from what is whole, and ends as if nothing had happened.

``LMTRAIN_SOAK_KILLS`` says how often (``make soak`` takes 200).
"""

from __future__ import annotations

import multiprocessing
import os
import random
from pathlib import Path

import torch
from little_run import go_on, trainer

from lmtrain.engine.checkpoints.read import checkpoints, newest
from tiny import weights

KILLS = int(os.environ.get("LMTRAIN_SOAK_KILLS", "4"))


def test_killed_again_and_again_it_ends_in_the_same_bits(tmp_path: Path) -> None:
    steps = 20 + 8 * KILLS
    straight = trainer(tmp_path / "straight", steps, save_strategy="no")
    straight.train()
    chance, folder = random.Random(KILLS), tmp_path / "killed"
    processes = multiprocessing.get_context("fork")  # what takes long is imported already
    killed = reached = 0
    for _ in range(KILLS):
        ready = processes.Event()
        process = processes.Process(target=go_on, args=(folder, steps, ready))
        process.start()
        assert ready.wait(120)
        process.join(chance.uniform(0.05, 1.0))
        killed += process.is_alive()
        process.kill()
        process.join()
        found = newest(folder)
        assert not found.passed_over, "what carries a checkpoint's name is whole"
        assert found.checkpoint is not None or not checkpoints(folder)
        assert found.step >= reached, "what was saved once is not lost again"
        reached = found.step
    assert killed > KILLS // 2
    last = processes.Process(target=go_on, args=(folder, steps, ready))
    last.start()
    last.join()
    assert last.exitcode == 0
    assert not list(folder.glob(".checkpoint-*")), "what killed saves left was cleared away"
    resumed = trainer(folder, steps)
    resumed.train(resume_from_checkpoint=True)  # nothing is left to train: the weights are those of the end
    assert resumed.state.log_history[steps - 1]["loss"] == straight.state.log_history[steps - 1]["loss"]
    ends = weights(straight.model)
    assert all(torch.equal(value, ends[name]) for name, value in weights(resumed.model).items())
