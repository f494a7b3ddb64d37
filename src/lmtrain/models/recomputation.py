"""Selective activation recomputation: what is cheap to make is made again in the backward pass instead of kept.

What an activation function or a norm makes is kept for the matrix product behind it, and their own backward passes keep
what they are made of. With both a layer of GPT-2 keeps 16 values a position and unit of width; without the first 10,
for one more pass over them, a hundredth of the time of the products (the idea: Korthikanti et al. 2022,
arXiv:2205.05198; here by hooks of autograd, for any architecture). The same kernel makes the same bits.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

_CLASSES: Final = (nn.GELU, nn.SiLU, nn.LayerNorm, nn.RMSNorm)
_NAMES: Final = ("GELUActivation", "GELUTanh", "SiLUActivation")  # of transformers, over the same kernels
_NORMS: Final = ("LayerNorm", "RMSNorm")  # as models call their own, such as LlamaRMSNorm
_LARGE: Final = 1 << 19  # values: what is smaller is made as fast as it is looked for


def is_worth_it(positions: int, width: int) -> bool:
    """Whether layers make enough of so many positions."""
    return positions * width >= _LARGE


def recomputes_all(model: nn.Module) -> bool:
    """Whether some layers keep nothing but what they are given (gradient checkpointing)."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """Around the forward pass of a training step in eager mode on a CPU; backward may come later."""
    kept = _Kept()
    with ExitStack() as stack:
        for module in model.modules():
            if _is_cheap(module):
                stack.callback(module.register_forward_hook(kept.look).remove)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(kept.pack, _unpack))
        yield


def _is_cheap(module: nn.Module) -> bool:
    """Whether it is a function of its one input, without a random part, whose own backward pass keeps the input."""
    if module._forward_hooks or module._forward_pre_hooks:  # which may change what it is given, or makes
        return False
    name = type(module).__name__
    return isinstance(module, _CLASSES) or name in _NAMES or name.endswith(_NORMS)


@dataclass(frozen=True, slots=True)
class _Recipe:
    module: nn.Module
    input: Tensor  # which the module's own backward pass keeps anyway
    version: int

    def make(self) -> Tensor:
        if self.input._version != self.version:
            raise RuntimeError(f"what {type(self.module).__name__} was given has been written over since")
        with torch.no_grad():
            made: Tensor = self.module.forward(self.input)
        return made


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor that is made when it is wanted."""

    recipe: _Recipe
    shape: torch.Size


class _Kept:
    """Of one forward pass: how outputs that still exist were made."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[weakref.ref[Tensor], int, _Recipe]] = {}

    def look(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A forward hook. An output with a graph of its own kernel only: under autocast a norm changes the format."""
        if not (isinstance(output, Tensor) and output.requires_grad and len(args) == 1 and output.numel() >= _LARGE):
            return
        (given,) = args
        if isinstance(given, Tensor) and given.dtype == output.dtype and output.is_contiguous():
            recipe = _Recipe(module, given.detach(), given._version)
            self._made[output.data_ptr()] = weakref.ref(output), output._version, recipe

    def pack(self, tensor: Tensor) -> Tensor | _View:
        """What autograd is to keep of a tensor."""
        entry = self._made.get(tensor.data_ptr())
        if entry is None:
            return tensor
        output, version, recipe = entry[0](), *entry[1:]
        if output is None:  # its memory may be another tensor's by now
            del self._made[tensor.data_ptr()]
            return tensor
        whole = tensor.numel() == output.numel() and tensor.dtype == output.dtype and tensor.is_contiguous()
        return _View(recipe, tensor.shape) if whole and output._version == version else tensor


def _unpack(kept: Tensor | _View) -> Tensor:
    return kept if isinstance(kept, Tensor) else kept.recipe.make().view(kept.shape)
