"""Trains little models on two processes and writes how DDP was told to wrap them: run by test_ddp.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from lmtrain.engine.distributed.processes import leave_together
from lmtrain.engine.trainer import LMTrainer
from tiny import MemoryLayout, arguments, gpt2, rows

EXAMPLES, A_STEP = 9, 4  # the last step has one example, and a process none


def trained(folder: Path, *, unused: bool = False, **given: object) -> dict[str, object]:
    model = gpt2()
    if unused:
        model.extra = torch.nn.Parameter(torch.zeros(3))
    args = arguments(folder, per_device_train_batch_size=A_STEP // 2, num_train_epochs=2, **given)
    trainer = LMTrainer(model, args, MemoryLayout(rows(EXAMPLES, shortest=2, longest=9)))
    trainer.train()
    handler = trainer.accelerator.ddp_handler
    weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    return {
        "looks": handler.find_unused_parameters,
        "views": handler.gradient_as_bucket_view,
        "steps": trainer.state.global_step,
        "weights": weights.double().tolist(),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    seen = {
        "plain": trained(folder / "a"),
        "asked": trained(folder / "b", ddp_find_unused_parameters=True),
        "unused": trained(folder / "c", unused=True),
    }
    rank = torch.distributed.get_rank()
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    leave_together()


if __name__ == "__main__":
    main()
