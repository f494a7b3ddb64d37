"""Trains and evaluates on the processes of a launcher, and writes what each saw: run by test_processes.py.

A step has eight examples over all processes, however many there are; the counts divide by none of their numbers.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters import options, stirred
from lmtrain.data.layouts import Pairs
from lmtrain.engine.distributed.processes import leave_together
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.adapters.lora import adapt
from lmtrain.objectives import Causal, Completion, Masked, Objective
from tiny import VOCABULARY, MemoryLayout, arguments, bert, gpt2, llama, logged, rows, try_fast_paths

GLOBAL_BATCH = 8
WORLDS = (1, 2, 4)
SAVED_AT = 4  # in the middle of the second epoch
MASKED = Masked(mask_id=1, vocab_size=VOCABULARY, special_ids=(0, 1, 2), probability=0.3, seed=3)
FIGURES = ("loss", "perplexity", "accuracy", "tokens")


class ReadPairs(Pairs):
    """Pairs that list which of them were asked for."""

    def __getitems__(self, indices: Any) -> Any:
        self.__dict__.setdefault("reads", []).extend(int(i) for i in indices)
        return super().__getitems__(indices)


def pairs(count: int, seed: int) -> Pairs:
    random = np.random.default_rng(seed)
    texts = [[random.integers(5, VOCABULARY, n).tolist() for n in random.integers(1, 12, count)] for _ in range(2)]
    return ReadPairs.from_ids(texts[0], texts[1], 64, suffix=(2,))


def uneven(count: int, seed: int) -> MemoryLayout:
    return MemoryLayout(rows(count, shortest=2, longest=14, seed=seed))


@dataclass(frozen=True)
class Case:
    """``examples`` to train on and ``held_out`` ones; ``micro`` is how many go at once in each of 1, 2, 4 processes."""

    model: Callable[[], Any]
    objective: Objective
    data: Callable[[int, int], Any] = uneven
    examples: int = 21
    held_out: int = 7
    micro: tuple[int, int, int] = (4, 2, 2)
    trainer: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def adapted() -> Any:
    torch.manual_seed(0)
    return stirred(adapt(llama(), options()))


def low_adapted() -> Any:
    torch.manual_seed(0)
    return adapt(llama(), options(), frozen=torch.bfloat16)


CASES = {
    "causal": Case(llama, Causal()),
    "causal, adamw": Case(gpt2, Causal(), training={"optim": "adamw_torch", "learning_rate": 1e-3}),
    "padded": Case(llama, Causal(), micro=(8, 4, 2), trainer={"packing": False}),
    "masked": Case(bert, MASKED),
    "pairs": Case(llama, Completion(), data=pairs),
    "pairs, joint": Case(gpt2, Causal(), data=pairs, micro=(2, 4, 1)),
    "lora": Case(adapted, Causal()),
    "lora, bf16": Case(low_adapted, Causal(), training={"bf16": True}),
    "fewer than processes": Case(llama, Causal(), examples=3, held_out=1),
    "one more than a step": Case(bert, MASKED, examples=9, held_out=9, micro=(8, 4, 2)),
}


def arguments_of(case: Case, folder: Path, world: int, **more: Any) -> Any:
    micro = case.micro[WORLDS.index(world)]
    return arguments(
        folder,
        **{
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": GLOBAL_BATCH // (micro * world),
            "per_device_eval_batch_size": 2,
            "num_train_epochs": 2,
            "optim": "sgd",
            "learning_rate": 0.02,
            "max_grad_norm": 1.0,
            "ddp_backend": "gloo" if world > 1 else None,
            **case.training,
            **more,
        },
    )


def trained(name: str, folder: Path, world: int, *, from_checkpoint: Path | None = None, saves: bool = False) -> Any:
    """What this process saw of one case."""
    case = CASES[name]
    train, held_out = case.data(case.examples, 0), case.data(case.held_out, 1)
    saving = {"save_strategy": "steps", "save_steps": SAVED_AT} if saves else {}
    args = arguments_of(case, folder, world, **saving)
    trainer = try_fast_paths(LMTrainer(case.model(), args, train, held_out, objective=case.objective, **case.trainer))
    seen: dict[str, Any] = {}
    if from_checkpoint is None:
        before = trainer.evaluate()
        seen["before"] = {figure: before[f"eval_{figure}"] for figure in FIGURES}
        seen["evaluation_reads"] = list(held_out.reads)
        trainer.predict(held_out)  # the stock loop before training must not keep DDP from wrapping the model
    train.reads.clear() if hasattr(train, "reads") else None
    trainer.train(resume_from_checkpoint=str(from_checkpoint) if from_checkpoint else None)
    after = trainer.evaluate()
    weights = [p.detach().float().flatten() for p in trainer.model.parameters() if p.requires_grad]
    return seen | {
        "training_reads": list(train.reads),
        "losses": logged(trainer, "loss"),
        "norms": logged(trainer, "grad_norm"),
        "tokens": trainer.state.num_input_tokens_seen,
        "after": {figure: after[f"eval_{figure}"] for figure in FIGURES},
        "weights": torch.cat(weights).tolist(),
        "packed": trainer.fast_paths.packing is not None,
    }


def evaluated(kind: str, count: int, batch: int, folder: Path, world: int) -> dict[str, Any]:
    data = MemoryLayout(rows(count, shortest=2, longest=14, seed=count))
    model, objective = (llama(), Causal()) if kind == "causal" else (bert(), MASKED)
    args = arguments(folder, per_device_eval_batch_size=batch, ddp_backend="gloo" if world > 1 else None)
    metrics = try_fast_paths(LMTrainer(model, args, None, data, objective=objective)).evaluate()
    seen: dict[str, Any] = {"reads": list(data.reads)} | {figure: metrics[f"eval_{figure}"] for figure in FIGURES}
    own = {"compute_metrics": lambda prediction: {"rows": len(prediction.predictions)}}
    metrics = LMTrainer(model, args, None, data, objective=objective, **own).evaluate()
    return seen | {"own": {figure: metrics[f"eval_{figure}"] for figure in (*FIGURES, "rows")}}


EVALUATIONS = {
    f"{kind}, {count} examples, {batch} at once": partial(evaluated, kind, count, batch)
    for kind, counts in {"causal": (1, 2, 7, 9), "masked": (1, 7)}.items()
    for count in counts
    for batch in (1, 3)
}
RESUMED = ("causal", "masked")


def run(folder: Path) -> dict[str, Any]:
    """Everything that is compared, on this process. The runs that are resumed lie in ``folder``, by how many made
    them; they are made by one process first."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    seen: dict[str, Any] = {
        name: trained(name, folder / f"{name}-{world}", world, saves=name in RESUMED) for name in CASES
    }
    for name in RESUMED:
        for before in {world, *((1,) if world > 1 else ())}:
            at = folder / f"{name}-{before}" / f"checkpoint-{SAVED_AT}"
            seen[f"{name}, resumed from {before}"] = trained(name, folder / "out", world, from_checkpoint=at)
    seen |= {name: evaluate(folder / "out", world) for name, evaluate in EVALUATIONS.items()}
    (folder / f"{world}-{rank}.json").write_text(json.dumps(seen))
    return seen


if __name__ == "__main__":
    run(Path(sys.argv[1]))
    leave_together()
