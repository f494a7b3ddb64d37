"""A model whose weights lie in parts on several processes, as ``torch.distributed.fsdp.fully_shard`` cuts them.

Each process keeps 1/N of every weight, of its gradient and of the optimizer's state; a layer is gathered while it
computes. The trainer takes such a model as it is, on gloo as on NCCL, wherever it was sharded: here, by the caller's
own ``fully_shard`` calls, or by Accelerate (``--fsdp`` on GPUs). Its weights are then ``DTensor``s.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lmtrain.core.errors import UserError
from lmtrain.models.layers import repeated_layers

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_PREFIX = "FSDP"  # fully_shard makes a class of its own of a module's: FSDPLlamaForCausalLM


def shard(model: Any, mesh: DeviceMesh | None = None, **options: Any) -> Any:
    """Cut the weights of ``model`` over all processes, in place: layer by layer, the rest as one. Returns it.

    Call it on every process, inside a process group, before an optimizer is made; adapters are added before, too. All
    take the first process's weights. ``mesh`` is a device mesh over all processes (one row of them unless given),
    ``options`` are those of ``torch.distributed.fsdp.fully_shard``. Raises :class:`UserError` without a process group.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        raise UserError(
            "a model is sharded over the processes of a group, and there is none: start the script by torchrun, and "
            "call torch.distributed.init_process_group (or make the TrainingArguments) first"
        )
    if mesh is None:
        own = next(model.parameters()).device.type
        # get_backend() is "undefined" where the group was made without naming one, which has NCCL on GPUs.
        kind = "cuda" if torch.cuda.is_available() and "nccl" in distributed.get_backend_config() else own
        mesh = init_device_mesh(kind, (distributed.get_world_size(),))
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            there = tensor.to(mesh.device_type)  # where the group's messages go; fully_shard moves the rest there, too
            distributed.broadcast(there, 0)
            tensor.copy_(there)
    for layer in repeated_layers(model):
        fully_shard(layer, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return model


def is_sharded(model: Any) -> bool:
    """Whether weights of ``model`` are cut by ``fully_shard``."""
    return torch.distributed.is_available() and isinstance(model, nn.Module) and bool(_units(model))


def _units(model: Any) -> list[Any]:
    """What of ``model`` was given to ``fully_shard``, the outermost first."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def class_of(module: nn.Module) -> type[nn.Module]:
    """The module's own class, whether ``fully_shard`` made it one of its own or not."""
    kind = type(module)
    if not (torch.distributed.is_available() and kind.__name__.startswith(_PREFIX)):
        return kind
    from torch.distributed.fsdp import FSDPModule

    return kind.__bases__[1] if kind.__bases__[0] is FSDPModule else kind


def put_away(model: Any) -> None:
    """Free what was gathered for a forward pass that no backward pass followed.

    ``fully_shard`` leaves the outermost weights whole then, for a backward pass; until it comes ``parameters()``
    gives those, which no optimizer should be made of.
    """
    for unit in _units(model):
        unit.reshard()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which this process has a part; every process has to ask. A plain one is itself."""
    full: Any = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def cut_like(tensor: Tensor, weight: Tensor) -> Tensor:
    """A whole ``tensor``, the same on every process, cut as ``weight`` of its shape is; nothing is exchanged."""
    placements: Any = getattr(weight, "placements", None)
    if placements is None:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh: Any = getattr(weight, "device_mesh", None)
    return distribute_tensor(tensor.to(weight.device), mesh, placements, src_data_rank=None)


def gathered_dtype(model: Any) -> torch.dtype:
    """What the weights are while they compute: another format than theirs where ``fully_shard`` was asked for it.

    Every process has to call it.
    """
    layer = next(iter(repeated_layers(model)), model)
    for unit in _units(layer) or _units(model):  # a layer may be several: Accelerate shards its checkpointing, too
        unit.unshard()
    dtype = next(layer.parameters()).dtype
    put_away(model)
    return dtype


def shape_of(weight: Tensor) -> tuple[int, ...]:
    """Of all of a weight, also where DeepSpeed's ZeRO-3 leaves an empty tensor in its place (``deepspeed.zero``)."""
    return tuple(getattr(weight, "ds_shape", weight.shape))


def count_of(model: Any, *, trained: bool = False) -> int:
    """The numbers in all weights of ``model``, or in those that are ``trained``, whoever holds which part of them."""
    return sum(math.prod(shape_of(p)) for p in model.parameters() if p.requires_grad or not trained)


def part_here(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor that is divided; a plain one is itself."""
    if getattr(tensor, "ds_tensor", None) is not None:
        return tensor.ds_tensor  # type: ignore[attr-defined]
    to_local: Any = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def tied_names(model: Any) -> dict[str, str]:
    """For each name of a state dictionary that is another's weight, too: the first of its names."""
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {name: kept for name, weight in state.items() if (kept := first.setdefault(id(weight), name)) != name}


def gathered(model: Any) -> dict[str, Tensor] | None:
    """The whole state dictionary of a sharded ``model``, on the CPU of the first process; None on the others.

    Every process has to call it. Costs the first one memory for the whole model. Tied weights are one tensor.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    put_away(model)
    state: dict[str, Any] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    if torch.distributed.get_rank() != 0:
        return None
    for name, kept in tied_names(model).items():
        if name in state and kept in state:
            state[name] = state[kept]
    return state
