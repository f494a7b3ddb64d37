"""Trains an adapter on the processes of a launcher and writes its weights: run by test_adapters.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from adapters import options
from lmtrain.engine.processes import leave_together
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.lora import adapt
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, llama, rows


def main(folder: Path) -> None:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    args = arguments(
        folder,
        per_device_train_batch_size=4 // world,
        num_train_epochs=2,
        learning_rate=0.05,
        optim="sgd",
        bf16="low" in str(folder),
        ddp_backend="gloo" if "RANK" in os.environ else None,
    )
    torch.manual_seed(0)
    model = adapt(llama(), options(), frozen=torch.bfloat16 if args.bf16 else None)
    trainer = LMTrainer(model, args, MemoryLayout(rows(16, shortest=12, longest=12)), objective=Causal())
    trainer.train()
    trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    torch.save(trained, folder / f"{world}-{args.process_index}.pt")
    del trainer
    leave_together()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
