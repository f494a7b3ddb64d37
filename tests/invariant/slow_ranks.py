"""Trains on two processes of which one is slow in turn, and writes what was told of it: run by test_slow_ranks.py."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from lmtrain.core.runlog import RunLog, read_events
from lmtrain.engine.distributed.processes import leave_together
from lmtrain.engine.progress import Progress
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.sharding import shard, whole
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, gpt2, rows

ASLEEP = 0.1  # seconds, in each of the two forward passes of a step
SLOW_READ = 0.06  # seconds, for each row of a step's four
STEPS = 6


class Slow(MemoryLayout):
    """Rows that take their time."""

    seconds = 0.0

    def __getitems__(self, indices: Any) -> Any:
        time.sleep(self.seconds * len(indices))
        return super().__getitems__(indices)


def run(folder: Path, name: str, *, asleep: float = 0.0, reading: float = 0.0, measures: bool = True,
        buffer: bool = False, sharded: bool = False) -> dict[str, Any]:  # fmt: skip
    model, data = gpt2(dropout=0.1), Slow(rows(4 * 2 * STEPS))
    if sharded:
        model = shard(model)
    if buffer:
        model.register_buffer("counts", torch.zeros(3))
    args = arguments(
        folder / name, max_steps=STEPS, per_device_train_batch_size=2, gradient_accumulation_steps=2, logging_steps=2,
        ddp_backend="gloo",
    )  # fmt: skip
    stream, log = io.StringIO(), RunLog(folder / name / f"{args.process_index}.jsonl")
    trainer = LMTrainer(model, args, data, objective=Causal(), callbacks=[Progress(log, stream=stream)])
    trainer.ranks.measures = measures
    _ = trainer.fast_paths  # which reads and computes too
    data.seconds = reading
    model.transformer.h[0].register_forward_pre_hook(lambda *_: time.sleep(asleep))
    trainer.train()
    log.close()
    weights = [whole(weight.detach()).numpy().tobytes() for weight in trainer.model.parameters()]
    bits = hashlib.sha256(b"".join(weights)).hexdigest()
    events = list(read_events(folder / name / f"{args.process_index}.jsonl"))
    return {
        "said": stream.getvalue(),
        "weights": bits,
        "losses": [line["loss"] for line in trainer.state.log_history if "loss" in line],
        "ranks": [event for event in events if event["event"] == "ranks"],
        "train": [event for event in events if event["event"] == "train"],
        "whole": trainer.meter.whole(trainer.state) | trainer.ranks.whole(),
        "tokens": trainer.state.num_input_tokens_seen,
        "hooks": len(model._forward_pre_hooks) - sharded,  # one is fully_shard's own
    }


def slower_by(step: float) -> float:
    """How many times as long to sleep where a step takes so many seconds: else other work of the machine hides it."""
    times = torch.tensor(min(max(3 * step / (2 * ASLEEP), 1.0), 20.0))
    torch.distributed.all_reduce(times, torch.distributed.ReduceOp.MAX)  # the first process alone knows
    return float(times)


def main(folder: Path) -> None:
    rank = arguments(folder, ddp_backend="gloo").process_index
    seen = {"even": run(folder, "even")}
    times = slower_by(max((event["seconds"] for event in seen["even"]["ranks"]), default=0.0))
    asleep, slow_read = times * ASLEEP, times * SLOW_READ
    seen |= {
        "unmeasured": run(folder, "unmeasured", measures=False),
        "second computes": run(folder, "second computes", asleep=asleep * (rank == 1)),
        "first computes": run(folder, "first computes", asleep=asleep * (rank == 0), buffer=True),
        "sharded": run(folder, "sharded", sharded=True, measures=False),
        "sharded, second computes": run(folder, "sharded, second computes", sharded=True, asleep=asleep * (rank == 1)),
        "second reads": run(folder, "second reads", reading=slow_read * (rank == 1)),
    }
    (folder / "times.json").write_text(json.dumps(times))
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    leave_together()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
