"""How much disk and memory a run takes, counted from its model, optimizer and schedule of saving.

::

    what lies there    at most, while the last checkpoint is written      and when the run has ended
    checkpoints        --save_total_limit + 1 (+ the best)                 --save_total_limit (+ the best)
    of them whole      --keep_optimizer_states + 1                         --keep_optimizer_states
    the others         weights only                                        weights only
    the model          1                                                   1
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import Any

import torch

from lmtrain.config.options import Resolved
from lmtrain.core.console import amount, counted
from lmtrain.core.errors import UserError
from lmtrain.engine.checkpoints.read import checkpoints
from lmtrain.engine.muon import maker_of
from lmtrain.engine.speed.memory import needed_by
from lmtrain.engine.trainer.saving import SPARE
from lmtrain.models.sharding import part_here, shape_of
from lmtrain.rehearsal.place import existing

_RECORDS = 50_000  # bytes of configuration, trainer state and manifest
_SIDE = 128  # of the matrix that an optimizer is tried on
_OF_A_MODEL = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Disk:
    """Bytes: of the ``weights`` in a checkpoint, of the ``optimizer`` state beside them, of the ``export`` at the end.

    ``made`` checkpoints are written in all; at most ``most`` lie there at once and ``kept`` stay, ``whole`` of those
    with optimizer state. ``best``: one of them is the best, kept whatever the limit. ``free`` counts what the run's own
    earlier files take, which are written over.
    """

    weights: int
    optimizer: int
    export: int
    made: int
    most: int
    kept: int
    whole: int
    best: bool
    free: int

    @property
    def checkpoint(self) -> int:
        return self.weights + self.optimizer + _RECORDS

    @property
    def needed(self) -> int:
        """At the fullest moment: the newest checkpoint is whole before an older one is reduced."""
        whole = min(self.most, self.whole + 1)
        return whole * self.checkpoint + (self.most - whole) * (self.weights + _RECORDS) + self.export

    @property
    def stays(self) -> int:
        """When the run has ended."""
        return self.whole * self.checkpoint + (self.kept - self.whole) * (self.weights + _RECORDS) + self.export


def disk_of(
    resolved: Resolved, model: Any, folder: Path, steps: int, epochs: float, *, optimizer: int | None = None
) -> Disk:
    """``optimizer``: bytes of its state; None takes AdamW's."""
    given = resolved.training
    made = _made(resolved, steps, epochs)
    best = made > 1 and (bool(given.get("load_best_model_at_end")) or given.get("save_strategy") == "best")
    limit = given.get("save_total_limit") or made
    kept = min(made, max(limit, 2 if best else 1))
    state = needed_by(model)["optimizer"] if optimizer is None else optimizer
    if given.get("save_only_model"):
        state = 0
    whole = min(kept, resolved.run.keep_optimizer_states)
    weights = saved_bytes(model)
    export = weights
    if resolved.lora.use_peft and resolved.lora.merge_lora:
        export = sum(p.numel() for p in model.get_base_model().parameters()) * 4
    free = disk_usage(existing(folder)).free + _own_files(folder)
    return Disk(weights, state, export, made, min(made, kept + 1), kept, whole, best, free)


def require_space(disk: Disk, folder: Path) -> None:
    """Raise :class:`UserError` when the run would fill the disk."""
    if disk.needed <= disk.free:
        return
    less = "--save_total_limit 1 keeps fewer" if disk.most > 2 else "--save_only_model or --save_strategy no take less"
    raise UserError(
        f"{counted(disk.most, 'checkpoint')} and the model take {amount(disk.needed, 'B')}, and "
        f"{amount(disk.free, 'B')} are free on the disk of {folder}; {less}, or name another disk",
        flag="--output_dir",
    )


def saved_bytes(model: Any) -> int:
    """What ``save_pretrained`` writes of the weights: tied ones once, of an adapter what was trained."""
    state = model.state_dict(keep_vars=True)
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(model, state, save_embedding_layers=False)
    parts = ((tensor, part_here(tensor)) for tensor in state.values())
    sizes = {(p.device, p.data_ptr()): math.prod(shape_of(t)) * t.element_size() for t, p in parts if p.numel()}
    return sum(sizes.values())


def snapshot_bytes(model: torch.nn.Module, optimizer: int, resolved: Resolved, free: int) -> int:
    """The copy that is saved in the background while training goes on: what is trained, and the optimizer's state.

    ``free`` bytes are there for it and for the step, whose gradients and optimizer state come first.
    """
    given = resolved.training
    if given.get("save_strategy") == "no" or resolved.run.background_save == "off":
        return 0
    if given.get("save_only_model"):
        return 0  # made when it is needed
    gradients = needed_by(model)["gradients"]
    copy = gradients + optimizer
    fits = free > copy + SPARE * copy
    return copy if resolved.run.background_save == "on" or (fits and not given.get("push_to_hub")) else 0


def times(strategy: str, every: float | None, steps: int, epochs: float) -> int:
    """How often something happens in ``steps`` steps that happens every so many of them (below 1: a share) and at
    the end."""
    if strategy == "epoch":
        return math.ceil(epochs)
    if strategy == "steps" and every:
        return math.ceil(steps / (math.ceil(every * steps) if every < 1 else every))
    return 0


def _made(resolved: Resolved, steps: int, epochs: float) -> int:
    given = resolved.training
    strategy = given.get("save_strategy", "steps")
    if strategy == "best":
        return times(given.get("eval_strategy", "no"), _every_evaluation(given), steps, epochs) or 2
    return times(strategy, given.get("save_steps", 500), steps, epochs)


def evaluations_of(resolved: Resolved, steps: int, epochs: float) -> int:
    """During training, and after it where the last one was not of the weights that stay."""
    given = resolved.training
    during = times(given.get("eval_strategy", "no"), _every_evaluation(given), steps, epochs)
    return during + int(resolved.do_eval and (not during or bool(given.get("load_best_model_at_end"))))


def _every_evaluation(given: dict[str, Any]) -> Any:
    return given.get("eval_steps") or given.get("logging_steps", 10)


def _own_files(folder: Path) -> int:
    """What an earlier part of this run, or one that is written over, takes there."""
    if not folder.is_dir():
        return 0
    own = [file for _, path in checkpoints(folder) for file in path.rglob("*")]
    own += [file for pattern in _OF_A_MODEL for file in folder.glob(pattern)]
    return sum(file.stat().st_size for file in own if file.is_file())


def optimizer_bytes(resolved: Resolved, trainer: Any) -> int:
    """Of the optimizer's state: counted for Muon, else as much for each trained number as it keeps for a small matrix.

    What cannot be asked that way is taken to keep what AdamW keeps.
    """
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    make = maker_of(resolved.training, "fp32")
    if make is not None:
        groups = make(trainer.model).param_groups
        return sum(p.numel() * 4 * (1 if g["kind"] == "muon" else 2) for g in groups for p in g["params"])
    try:
        kind, settings = type(trainer).get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
        matrix = torch.nn.Parameter(torch.zeros(_SIDE, _SIDE, device=trainer.args.device))
        matrix.grad = torch.zeros_like(matrix)
        optimizer = kind([matrix], **settings)
        optimizer.step()
        values = [value for entry in optimizer.state.values() for value in entry.values()]
        a_number = sum(v.numel() * v.element_size() for v in values if isinstance(v, torch.Tensor)) / _SIDE**2
    except Exception:  # some want the model's own parameters, or packages of their own
        return needed_by(trainer.model)["optimizer"]
    return round(a_number * sum(p.numel() for p in trained))
