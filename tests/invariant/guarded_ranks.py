"""Trains on the processes of a launcher, one of which has an infinite loss at the second step, or is asked to stop.

Each writes what it ends with.

(Run by test_guarded_processes.py.)"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from lmtrain.core.console import silent
from lmtrain.core.stopping import Stop
from lmtrain.engine.distributed.processes import leave_together
from lmtrain.engine.guarding import BadNumbersError, Guarding
from lmtrain.engine.trainer import LMTrainer
from lmtrain.engine.trainer.guarding import spoil_gradient
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, gpt2, logged, rows, weights

HELD_OUT = 41  # examples: one process has a batch more


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter({"input_ids": row} for row in rows(HELD_OUT, shortest=4, longest=14))


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
    leave_an_evaluation(folder)
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


def leave_an_evaluation(folder: Path) -> None:
    """The last process is asked to stop in the evaluation behind step 2; then all go on from there. So it is where
    logits are gathered, and where nobody knows how many batches there are."""
    seen: dict[str, Any] = {}
    for name in ("straight", "left", "left, resumed", "left with metrics", "left in a stream"):
        place = folder / name.partition(",")[0]
        args = arguments(
            place, per_device_train_batch_size=2, per_device_eval_batch_size=1, max_steps=3, eval_strategy="steps",
            eval_steps=2, save_strategy="steps", save_steps=100, ddp_backend="gloo",
        )  # fmt: skip
        data, held_out = (MemoryLayout(rows(n, shortest=4, longest=14)) for n in (16, HELD_OUT))
        own: Any = {"compute_metrics": lambda _: {}} if "metrics" in name else {}
        scored = Stream() if "stream" in name else held_out
        trainer = LMTrainer(gpt2(), args, data, scored, objective=Causal(), stop=Stop(say=silent), **own)
        asks = name.startswith("left") and "resumed" not in name and args.process_index == args.world_size - 1
        asked = _Asked(trainer, asks)
        trainer.add_callback(asked)
        trainer.train(resume_from_checkpoint=str(place / "checkpoint-2") if "resumed" in name else None)
        seen[name] = {
            "batches": asked.batches, "step": trainer.state.global_step, "stopped": trainer.was_stopped,
            "heard": trainer.is_asked_to_stop, "losses": logged(trainer, "loss"),
            "scores": logged(trainer, "eval_loss"),
        }  # fmt: skip
    (folder / f"{args.process_index}.json").write_text(json.dumps(seen))


class _Asked(TrainerCallback):
    """Counts the batches that are evaluated; as a signal does, it asks in the second."""

    def __init__(self, trainer: LMTrainer, asks: bool) -> None:
        self.trainer, self.asks, self.batches = trainer, asks, 0

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.batches += 1
        if self.asks and self.batches == 2 and self.trainer.stop is not None:
            self.trainer.stop.ask("SIGTERM")


def _snapshots(into: list[dict[str, torch.Tensor]]) -> Any:
    class Snapshots(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            into.append(weights(kwargs["model"]))

    return Snapshots()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
