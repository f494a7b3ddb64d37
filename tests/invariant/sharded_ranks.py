"""Trains models that ``fully_shard`` cut on the processes of a launcher; each writes what it saw.

(Run by test_sharded.py.)"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from adapters import options
from lmtrain.config.groups import ModelOptions
from lmtrain.core.errors import UserError
from lmtrain.data.layouts import Pairs
from lmtrain.engine.checkpoints.policy import Saving
from lmtrain.engine.distributed.processes import by_the_first, leave_together
from lmtrain.engine.muon import maker_of
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models import load_model
from lmtrain.models.adapters.lora import adapt
from lmtrain.models.exporting.verified_export import export_verified, sharded_logits
from lmtrain.models.sharding import gathered, shard
from lmtrain.objectives import Causal, Completion, Masked
from tiny import VOCABULARY, MemoryLayout, arguments, bert, gpt2, llama, logged, rows

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))
DATA = rows(18, shortest=2, longest=14)  # four and a half global batches of four
EVALUATED = rows(7, seed=3)
FIGURES = ("loss", "perplexity", "accuracy", "tokens")
FSDP2 = Path(__file__).parents[2] / "examples" / "distributed" / "fsdp2.json"
SAVED = 4  # the step of the checkpoint that is gone on from; ten are made
Seen = dict[str, Any]


def adapted(folder: Path) -> Any:
    torch.manual_seed(0)
    base = load_model(ModelOptions(model_name_or_path=str(folder / "base")), "clm", None).model
    return adapt(base, options())


MODELS: dict[str, Callable[[Path], Any]] = {
    "llama": lambda _: llama(),
    "gpt2": lambda _: gpt2(),  # its head is its embedding
    "bert": lambda _: bert(),
    "lora": adapted,
    "muon": lambda _: llama(),
    "pairs": lambda _: llama(),
}
ON_FOUR = ("llama", "bert", "lora", "pairs")


def paired(count: int, seed: int) -> Any:
    """Contexts and completions of uneven length."""
    contexts, completions = (rows(count, shortest=1, longest=9, seed=seed + more) for more in (0, 100))
    return Pairs.from_ids(contexts, completions, 64, suffix=(2,))


@contextmanager
def as_on_gpus() -> Iterator[None]:
    """Accelerate's own FSDP2 on processors: it leaves them out by the name of what joins the processes, and no more."""
    made = AcceleratorState.__init__

    def makes(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        if fsdp_plugin is not None:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        made(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)

    before = dict(os.environ)
    AcceleratorState.__init__ = makes
    try:
        yield
    finally:
        AcceleratorState.__init__ = made
        os.environ.clear()
        os.environ.update(before)


def trainer_of(kind: str, folder: Path, out: str = "", *, best: bool = False, **changes: Any) -> LMTrainer:
    """A trainer of steps over four examples, whatever the number of processes; sharded where there are several."""
    whole, saving = changes.pop("whole", False), changes.pop("saving", None)
    packing = changes.pop("packing", True)
    settings: dict[str, Any] = {
        "per_device_train_batch_size": max(1, 2 // WORLD),
        "gradient_accumulation_steps": 4 // max(2, WORLD),
        "per_device_eval_batch_size": 2,
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "adam_epsilon": 1e-4,  # or gradients that are rounding and nothing else would become whole steps
        "save_strategy": "steps",
        "save_steps": SAVED,
        "ddp_backend": "gloo" if WORLD > 1 else None,
    }
    args = arguments(folder / f"{out or kind}-{WORLD}", **{**settings, **changes})
    args.load_best_model_at_end = best
    if best:
        args.metric_for_best_model, args.greater_is_better = "loss", False
    assert args.device.type == "cpu"  # makes the process group
    model = MODELS[kind](folder)
    if WORLD > 1 and not whole:
        if RANK:  # all are to take the first one's weights
            with torch.no_grad():
                next(model.parameters()).add_(1.0)
        model = shard(model)
    objective: Any = Masked(mask_id=1, vocab_size=VOCABULARY, seed=3) if kind == "bert" else Causal()
    data, evaluated = MemoryLayout(DATA), MemoryLayout(EVALUATED)
    if kind == "pairs":
        objective, data, evaluated = Completion(), paired(18, 0), paired(7, 3)
    maker = maker_of({"optim": "muon"}, "fp32") if kind == "muon" else None
    return LMTrainer(
        model, args, data, evaluated, objective=objective, make_optimizer=maker, saving=saving, packing=packing
    )  # fmt: skip


def trained(trainer: LMTrainer, checkpoint: Path | None = None) -> Seen:
    """What a training says, from the first step on or after that of a checkpoint, and the evaluations around it."""
    before = trainer.evaluate()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    after = trainer.evaluate()
    return {
        "losses": logged(trainer, "loss"),
        "norms": logged(trainer, "grad_norm"),
        "before": {name: before[f"eval_{name}"] for name in FIGURES},
        "after": {name: after[f"eval_{name}"] for name in FIGURES},
        "head": trainer.fast_paths.decisions["head"]["choice"],
        "wrapped": type(trainer.model_wrapped).__name__,
        "packed": trainer.fast_paths.packing is not None,
    }


def exported(trainer: LMTrainer, folder: Path, kind: str) -> None:
    """The model that the first process writes, compared there with what all computed together."""
    state, logits = gathered(trainer.model), sharded_logits(trainer.model, None)

    def work() -> None:
        found = export_verified(
            trainer.model, None, folder / "export" / kind, "mlm" if kind == "bert" else "clm",
            state=state, logits=logits,
        )  # fmt: skip
        (folder / "export" / f"{kind}.json").write_text(json.dumps(found.as_dict()))

    by_the_first(work)


def by_accelerate(folder: Path) -> dict[str, Seen]:
    """Sharded by the Trainer's own flags, evaluated before it is trained, gone on with, and its export compared."""
    flags = {"fsdp": True, "fsdp_config": str(FSDP2), "whole": True, "packing": False}
    straight = trainer_of("gpt2", folder, "fsdp2", **flags)
    seen = {"straight": trained(straight)}
    exported(straight, folder, "fsdp2")
    again = trainer_of("gpt2", folder, "again", **flags)
    seen["again"] = trained(again, folder / "fsdp2-2" / f"checkpoint-{SAVED}")
    return seen


class Failing(TrainerCallback):
    """The save after the fourth step fails where the last process flushes its part, that after the sixth where the
    first one renames the whole."""

    def __init__(self) -> None:
        self._real = {name: getattr(os, name) for name in ("fsync", "replace")}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        where = {4: ("fsync", WORLD - 1), 6: ("replace", 0)}.get(state.global_step)
        if where is not None and where[1] == RANK:
            setattr(os, where[0], self._fail)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)

    def _fail(self, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing_saves(folder: Path) -> Seen:
    told: list[Seen] = []
    trainer = trainer_of("llama", folder, "failing", max_steps=8, save_steps=2, saving=Saving(report=told.append))
    trainer.add_callback(Failing())
    trainer.train()
    return {"steps": [line["step"] for line in told], "failed": [line.get("failed", "") for line in told]}


class Stream(IterableDataset[Any]):
    """Seven rows, in batches of two: the last round has none for one of two processes."""

    def __iter__(self) -> Iterator[Any]:
        return iter({"input_ids": row} for row in EVALUATED)


def refused(folder: Path) -> str:
    """An adapter that was added after the model had been sharded."""
    trainer = trainer_of("llama", folder, "refused", max_steps=1, save_strategy="no")
    trainer.model.extra = torch.nn.Parameter(torch.ones(2))
    try:
        trainer.train()
    except UserError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    seen: dict[str, Seen] = {}
    for kind in MODELS if WORLD == 2 else ON_FOUR:
        trainer = trainer_of(kind, folder)
        seen[kind] = trained(trainer)
        if kind in ("gpt2", "bert", "lora"):
            exported(trainer, folder, kind)
    if WORLD == 2:
        for kind in ("llama", "gpt2", "lora", "muon"):
            seen[f"{kind} again"] = trained(
                trainer_of(kind, folder, "again"), folder / f"{kind}-2" / f"checkpoint-{SAVED}"
            )
        seen["whole"] = trained(
            trainer_of("llama", folder, "again", whole=True), folder / "llama-2" / f"checkpoint-{SAVED}"
        )
        trainer = trainer_of("llama", folder, "best", best=True, eval_strategy="steps", eval_steps=2, learning_rate=0.3)
        best = trained(trainer)
        seen["best"] = {"score": trainer.state.best_metric, "after": best["after"]["loss"], **trainer.exported}
        with as_on_gpus():
            seen["accelerate"] = by_accelerate(folder)
        seen["failing"] = failing_saves(folder)
        seen["stream"] = {"tokens": trainer.evaluate(Stream())["eval_tokens"]}
        seen["refused"] = {"said": refused(folder)}
    else:
        seen["from one"] = trained(trainer_of("gpt2", folder, "again"), folder / "gpt2-1" / f"checkpoint-{SAVED}")
        seen["from two"] = trained(trainer_of("gpt2", folder, "again"), folder / "gpt2-2" / f"checkpoint-{SAVED}")
    (folder / f"{WORLD}-{RANK}.json").write_text(json.dumps(seen))
    del trainer
    leave_together()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
