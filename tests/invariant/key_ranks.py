"""Trains and evaluates with key tokens on the processes of a launcher: run by test_key_token_processes.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from lmtrain.engine.distributed.processes import leave_together
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import KeyTokens
from tiny import MemoryLayout, arguments, llama, logged, rows

COUNT = 7
FIGURES = ("loss", "tokens", "loss_with_keys", "perplexity_with_keys", "loss_without_keys", "tokens_with_keys")


def trained(folder: Path, batch: int, **options: Any) -> dict[str, Any]:
    """What two epochs over seven uneven rows said, ``batch`` of them a process and step."""
    data = MemoryLayout(rows(COUNT, shortest=2, longest=14))
    args = arguments(
        folder,
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=2,
        num_train_epochs=2,
        optim="sgd",
        learning_rate=0.02,
        max_grad_norm=0,
        **options,
    )
    trainer = LMTrainer(llama(), args, data, data, objective=KeyTokens((7, 30, 31), 0.5))
    before = trainer.evaluate()
    trainer.train()
    return {
        "before": {name: before[f"eval_{name}"] for name in FIGURES},
        "losses": logged(trainer, "loss"),
        "norms": logged(trainer, "grad_norm"),
    }


if __name__ == "__main__":
    several = "RANK" in os.environ
    folder = Path(sys.argv[1])
    seen = trained(folder, 2, ddp_backend="gloo" if several else None)
    (folder / f"rank-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(seen))
    leave_together()
