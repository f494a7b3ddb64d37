"""Evaluates and trains on the processes of a launcher, and writes what each saw: run by test_processes.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from lmtrain.engine.processes import leave_together
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, llama, logged, rows, try_fast_paths

COUNT = 7


def main(folder: Path) -> None:
    data = rows(COUNT, shortest=2, longest=14)
    evaluated, trained = MemoryLayout(data), MemoryLayout(data)
    args = arguments(
        folder,
        per_device_eval_batch_size=2,
        per_device_train_batch_size=2,
        num_train_epochs=2,
        optim="sgd",
        learning_rate=0.05,
        max_grad_norm=0,
        save_strategy="steps",
        save_steps=3,  # in the middle of the second epoch
        ddp_backend="gloo" if "RANK" in os.environ else None,
    )
    trainer = try_fast_paths(LMTrainer(llama(), args, trained, evaluated, objective=Causal()))
    before = trainer.evaluate()
    evaluation_reads = list(evaluated.reads)
    trainer.predict(evaluated)  # the stock loop before training must not keep DDP from wrapping the model
    trainer.train()
    after = trainer.evaluate()
    again = MemoryLayout(data)
    resumed = try_fast_paths(LMTrainer(llama(), args, again, objective=Causal()))
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    seen = {
        "rank": args.process_index,
        "world": args.world_size,
        "before": {name: before[f"eval_{name}"] for name in ("loss", "accuracy", "tokens")},
        "after": after["eval_loss"],
        "evaluation_reads": evaluation_reads,
        "training_reads": trained.reads,
        "losses": logged(trainer, "loss"),
        "resumed_losses": logged(resumed, "loss"),
        "resumed_reads": again.reads,
        "norms": logged(trainer, "grad_norm"),
        "tokens": trainer.state.num_input_tokens_seen,
        "weights": float(sum(p.detach().double().abs().sum() for p in trainer.model.parameters())),
    }
    (folder / f"{args.world_size}-{args.process_index}.json").write_text(json.dumps(seen))
    del trainer, resumed
    leave_together()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
