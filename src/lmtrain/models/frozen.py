"""Frozen layers kept in the format that their products are made in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class _LowLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        if torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return nn.functional.linear(input, self.weight.to(input.dtype), bias)


class _LowConv1D(Conv1D):
    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        rows = torch.addmm(self.bias.to(x.dtype), x.reshape(-1, x.shape[-1]), self.weight.to(x.dtype))
        return rows.view(*x.shape[:-1], self.nf)


_LOW: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: _LowLinear, Conv1D: _LowConv1D}


def casts_itself(module: nn.Module) -> bool:
    """Whether a layer's weights are kept in fewer bits than it computes in, as :func:`keep_frozen_low` leaves it."""
    return type(module) in _LOW.values()


def keep_frozen_low(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep the weights of frozen linear layers in ``dtype``, bf16 or fp16.

    Autocast casts a frozen fp32 weight anew at every use, since it keeps only the casts of weights that are trained.
    Under autocast to ``dtype`` results are the same to the bit, in half the memory. Without autocast the rounded
    weights are cast up, so that two ways of running the model can still be compared in fp32. Embeddings and
    norms stay as they are, since what they compute is added up in fp32, and so does the head, which has kernels of its
    own.
    """
    uses: dict[Tensor, int] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            uses[weight] = uses.get(weight, 0) + 1
    head: nn.Module | None = getattr(model, "get_output_embeddings", lambda: None)()
    parts = set() if head is None else set(head.modules())
    for module in model.modules():
        weights = list(module.parameters(recurse=False))
        alone = all(uses[weight] == 1 and not weight.requires_grad for weight in weights)
        if type(module) in _LOW and module not in parts and weights and alone:
            for weight in weights:
                weight.data = weight.data.to(dtype)
            module.__class__ = _LOW[type(module)]
