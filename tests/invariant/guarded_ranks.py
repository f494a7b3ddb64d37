"""Trains on the processes of a launcher, one of which has an infinite loss at the second step.

Each writes what it ends with.

(Run by test_guarded_processes.py.)"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from lmtrain.engine.guarding import BadNumbersError, Guarding
from lmtrain.engine.processes import leave_together
from lmtrain.engine.trainer import LMTrainer
from lmtrain.engine.trainer.guarding import spoil_gradient
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, gpt2, logged, rows, weights


class Spoiled(LMTrainer):
    """The last process's loss is infinite at the steps ``spoiled``; its gradient alone would still be finite."""

    spoiled: tuple[int, ...] = (2,)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        if self.state.global_step + 1 in self.spoiled and self.args.process_index == self.args.world_size - 1:
            loss = loss + math.inf
            spoil_gradient(loss)
        return loss


def main(folder: Path) -> None:
    args = arguments(
        folder, per_device_train_batch_size=2, max_steps=3, ddp_backend="gloo" if "RANK" in os.environ else None
    )
    told: list[dict[str, Any]] = []
    data = MemoryLayout(rows(16, shortest=4, longest=14))
    trainer = Spoiled(gpt2(), args, data, objective=Causal(), guarding=Guarding(report=told.append))
    begun: list[dict[str, torch.Tensor]] = []
    trainer.add_callback(_snapshots(begun))
    trainer.train()
    ended = {"begun": begun, "weights": weights(trainer.model), "told": told, "losses": logged(trainer, "loss")}
    torch.save(ended, folder / f"{args.process_index}.pt")
    del trainer
    stop(folder)
    leave_together()


def stop(folder: Path) -> None:
    """Two bad steps in a row end it: each process says so, and writes down why."""
    args = arguments(folder / "stopped", per_device_train_batch_size=2, max_steps=9, ddp_backend="gloo")
    data = MemoryLayout(rows(16, shortest=4, longest=14))
    trainer = Spoiled(gpt2(), args, data, objective=Causal(), guarding=Guarding(max_bad_steps=2))
    trainer.spoiled = (2, 4, 5)
    try:
        trainer.train()
    except BadNumbersError as error:
        (folder / f"{args.process_index}.txt").write_text(str(error))


def _snapshots(into: list[dict[str, torch.Tensor]]) -> Any:
    class Snapshots(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            into.append(weights(kwargs["model"]))

    return Snapshots()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
