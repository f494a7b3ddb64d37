"""What of a model and its optimizer goes into a checkpoint of several processes, and back: by name, not by number.

A name means the same however many processes there are, so what two wrote is read by one, whole, or by four. Names are
those of the model's state dictionary; a tied weight has its first.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json
from lmtrain.engine.checkpoints.read import (
    OPTIMIZER,
    OPTIMIZER_GROUPS,
    SHARDED_OPTIMIZER,
    SHARDED_WEIGHTS,
    has_shards,
    other_names,
    read_tensors,
)
from lmtrain.engine.checkpoints.sharded import names_in, read_part
from lmtrain.models.sharding import cut_like, tied_names

_FLAG = "--resume_from_checkpoint"
_BETWEEN = "//"  # a weight's name and that of its state: model.norm.weight//exp_avg
_SOME = StateDictOptions(strict=False)


def weights_of(model: Any) -> dict[str, Tensor]:
    """The tensors of ``model`` by name, the pieces of this process; of an adapter's model those that are trained."""
    only = StateDictOptions(ignore_frozen_params=hasattr(model, "peft_config"))
    state: dict[str, Any] = dict(get_model_state_dict(model, options=only))
    for name in tied_names(model):
        state.pop(name, None)
    return state


def optimizer_of(model: Any, optimizer: Any) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The optimizer's tensors by name, the pieces of this process; its groups of parameters, as JSON has them."""
    state: Any = get_optimizer_state_dict(model, _inner(optimizer))
    tensors: dict[str, Tensor] = {}
    for weight, kept in state["state"].items():
        for what, value in kept.items():
            if not isinstance(value, Tensor):
                raise UserError(
                    f"the optimizer keeps {what} of {weight} as {type(value).__name__}; a sharded checkpoint holds "
                    "tensors only. Take another optimizer, or save weights only",
                    flag="--optim",
                )
            tensors[f"{weight}{_BETWEEN}{what}"] = value
    return tensors, [{key: _plain(value) for key, value in group.items()} for group in state["param_groups"]]


def load_weights(model: Any, checkpoint: Path) -> None:
    """Put the weights of ``checkpoint`` into ``model``; either may be sharded or whole.

    Every process has to call it. Raises :class:`UserError` where the checkpoint is another model's.
    """
    folder = checkpoint / SHARDED_WEIGHTS
    if not has_shards(checkpoint):
        folder = checkpoint
        if not any(checkpoint.glob("model*.safetensors")):
            raise UserError(
                f"{checkpoint} was not written by sharded processes and holds no whole model (an adapter alone, or a "
                "pickle), so a sharded model cannot go on from it: go on without sharding",
                flag=_FLAG,
            )
    state = weights_of(model)
    _require_names(folder, state.keys(), names_in(folder))
    read_part(folder, state)
    set_model_state_dict(model, dict(state), options=_SOME)


def load_optimizer(model: Any, optimizer: Any, checkpoint: Path) -> None:
    """Put the optimizer's state of ``checkpoint`` into ``optimizer``; either may be sharded or whole.

    Every process has to call it. Raises :class:`UserError` where the checkpoint is another model's or optimizer's.
    """
    optimizer = _inner(optimizer)
    if not has_shards(checkpoint):
        optimizer.load_state_dict(_cut(optimizer, read_tensors(checkpoint / OPTIMIZER)))
        return
    folder = checkpoint / SHARDED_OPTIMIZER
    tensors, _ = optimizer_of(model, optimizer)  # makes the state where there is none yet
    _require_names(folder, tensors.keys(), names_in(folder))
    read_part(folder, tensors)
    state: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        weight, what = name.rsplit(_BETWEEN, 1)
        state.setdefault(weight, {})[what] = tensor
    groups = [
        {key: tuple(value) if isinstance(value, list) and key != "params" else value for key, value in group.items()}
        for group in read_json(checkpoint / OPTIMIZER_GROUPS)
    ]
    set_optimizer_state_dict(model, optimizer, {"state": state, "param_groups": groups})  # type: ignore[dict-item]


def _inner(optimizer: Any) -> Any:
    """Without Accelerate's wrapper, whose steps may be none."""
    return getattr(optimizer, "optimizer", optimizer)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _cut(optimizer: Any, whole: dict[str, Any]) -> dict[str, Any]:
    """A state dictionary of whole tensors, each cut as the weight of ``optimizer`` is that it belongs to."""
    numbers = [number for group in whole["param_groups"] for number in group["params"]]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if len(numbers) != len(weights):
        raise UserError(
            f"the optimizer's state is of {len(numbers)} weights, and {len(weights)} are trained", flag=_FLAG
        )

    def cut(value: Any, weight: Tensor) -> Any:
        return cut_like(value, weight) if isinstance(value, Tensor) and value.shape == weight.shape else value

    by_number = dict(zip(numbers, weights, strict=True))
    state = {
        number: {what: cut(value, by_number[number]) for what, value in kept.items()}
        for number, kept in whole["state"].items()
    }
    return {**whole, "state": state}


def _require_names(folder: Path, mine: Iterable[str], there: Iterable[str]) -> None:
    mine, there = set(mine), set(there)
    if wrong := other_names(sorted(mine - there), sorted(there - mine)):
        raise UserError(f"{folder} holds another model's tensors: {wrong}", flag=_FLAG)
