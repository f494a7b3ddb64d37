"""Evaluates data of every awkward size on the processes of a launcher: run by test_evaluation_processes.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from lmtrain.engine.processes import leave_together
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal, Masked
from tiny import VOCABULARY, MemoryLayout, arguments, bert, llama, rows, try_fast_paths

EXAMPLES = (1, 2, 7, 8, 9)
BATCHES = (1, 3)


def evaluated(folder: Path) -> dict[str, Any]:
    """By objective, number of examples and batch size: which rows this process read, and the figures."""
    seen: dict[str, Any] = {}
    backend = "gloo" if "RANK" in os.environ else None
    for kind in ("causal", "masked"):
        for count in EXAMPLES:
            for batch in BATCHES:
                data = MemoryLayout(rows(count, shortest=2, longest=14, seed=count))
                args = arguments(folder, per_device_eval_batch_size=batch, ddp_backend=backend)
                objective: Any = Causal() if kind == "causal" else Masked(mask_id=1, vocab_size=VOCABULARY, seed=3)
                trainer = LMTrainer(llama() if kind == "causal" else bert(), args, None, data, objective=objective)
                metrics = try_fast_paths(trainer).evaluate()
                figures = {name: metrics[f"eval_{name}"] for name in ("loss", "perplexity", "accuracy", "tokens")}
                seen[f"{kind} {count} {batch}"] = {"reads": data.reads, **figures}
    return seen


def main(folder: Path) -> None:
    seen = evaluated(folder)
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(seen))
    leave_together()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
