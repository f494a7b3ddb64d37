"""Trains with Muon on the processes of a launcher and writes the weights that each ends with.

(Run by test_muon_processes.py.)"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from lmtrain.engine.distributed.processes import leave_together
from lmtrain.engine.muon import maker_of
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, llama, rows, weights


def main(folder: Path, batch: int) -> None:
    args = arguments(
        folder,
        per_device_train_batch_size=batch,
        max_steps=4,
        learning_rate=0.02,
        ddp_backend="gloo" if "RANK" in os.environ else None,
    )
    data = MemoryLayout(rows(16, shortest=4, longest=14))
    trainer = LMTrainer(llama(), args, data, objective=Causal(), make_optimizer=maker_of({"optim": "muon"}, "fp32"))
    trainer.train()
    torch.save(weights(trainer.model), folder / f"{args.world_size}-{args.process_index}.pt")
    del trainer
    leave_together()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
