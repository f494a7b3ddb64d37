"""Where a model makes logits of hidden states, and how to have it do so at chosen positions only.

A language model of ``transformers`` is a body, which gives hidden states (B, T, D), and a head, which makes each of
them logits over V ids by itself: a transform at most (BERT and its kin), then one linear layer. A masked model is
scored at 15 % of its positions, so most of what its head computes is thrown away; a causal model's logits are the
largest tensor of its step. Both are spared by stepping in at two places while the model's own ``forward`` runs::

    body ──► hidden (B, T, D) ──► the chosen rows (1, N, D) ──► transform ──► hidden (N, D′) ──► linear layer
                                  ^ here                                                     ^ and here

Nothing is known of any architecture but the names by which ``transformers`` asks a model for its parts, so whoever
uses this proves it first: see ``engine/speed/proof.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lmtrain.models.sharding import class_of

_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")  # names of Gemma and of RecurrentGemma


@dataclass(frozen=True)
class Head:
    """The parts of a language model around its hidden states.

    The logits are ``scale`` · (hidden W' + b), then ``softcap`` · tanh(logits / softcap) where there is one.
    """

    body: nn.Module
    output: nn.Linear
    scale: float = 1.0
    softcap: float | None = None

    @property
    def bias(self) -> Tensor | None:
        return getattr(self.output, "bias", None)  # PEFT's wrapper of a layer without one has no such name

    def logits(self, values: Tensor) -> Tensor:
        """What the model makes of the ``values`` of its output layer."""
        scaled = values * self.scale
        return scaled if self.softcap is None else self.softcap * torch.tanh(scaled / self.softcap)


def find_head(model: nn.Module) -> Head:
    """The head of a causal or masked model, also below a PEFT wrapper; LookupError with the reason if it has none
    that can be taken apart."""
    unwrap: Callable[[], Any] = getattr(model, "get_base_model", lambda: model)
    whole = unwrap()
    body = getattr(whole, "base_model", None)
    if not isinstance(body, nn.Module) or body is whole:
        raise LookupError("its body is no part of its own")
    output = _linear(getattr(whole, "get_output_embeddings", lambda: None)())
    if any(module is output for module in body.modules()):
        raise LookupError("its output layer is a part of its body")
    config = whole.config.get_text_config()
    softcap = next((cap for name in _SOFTCAPS if (cap := getattr(config, name, None)) is not None), None)
    return Head(body, output, _scale(config), softcap)


def _linear(output: Any) -> nn.Linear:
    if output is None:
        raise LookupError("it names no output layer")
    kept = getattr(output, "modules_to_save", None)  # PEFT's wrapper of a layer that is trained whole
    if kept is not None:
        output = kept[output.active_adapter if isinstance(output.active_adapter, str) else output.active_adapter[0]]
    rows = getattr(output, "token_adapter", None)  # its wrapper of one with some rows trained: it has a weight too
    plain = output if rows is None else rows.get_base_layer()
    if rows is not None and type(plain) is nn.Linear and plain.bias is None:
        return output
    if class_of(output) is not nn.Linear:
        raise LookupError(f"its output layer is a {class_of(output).__name__}, no plain linear layer")
    return output


def _scale(config: Any) -> float:
    """What a configuration multiplies the logits with: the names are those of Cohere, Granite and Falcon-H1."""
    scale = 1.0
    for name, divides in (("logit_scale", False), ("logits_scaling", True), ("lm_head_multiplier", False)):
        value = getattr(config, name, None)
        if isinstance(value, int | float):
            scale *= 1 / value if divides else value
    return scale


@contextmanager
def scored_at(head: Head, positions: Tensor, score: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While this is entered, one forward pass of the model computes its head at ``positions`` only.

    ``positions`` (N,) are indices into the B·T positions of the batch, in row order. In the place of the output layer
    ``score`` is called with the hidden states (N, D′) that would enter it, inside the model's forward pass, where
    sharded weights are gathered; it returns a scalar. The model goes on with that scalar as if it were its logits,
    which keeps every weight in the graph of what it returns, as DistributedDataParallel expects.
    """

    bodies = 0

    def chosen(hidden: Tensor) -> Tensor:
        return hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions)

    def choose(module: nn.Module, inputs: Any, result: Any) -> Any:
        nonlocal bodies
        bodies += 1
        if isinstance(result, tuple):
            return (chosen(result[0])[None], *result[1:])
        result[next(iter(result))] = chosen(result[0])[None]
        return result

    def in_place_of_logits(hidden: Tensor) -> Tensor:
        # A model that calls a part of its body (OPT) comes here with all positions.
        rows = hidden.reshape(-1, hidden.shape[-1]) if bodies else chosen(hidden)
        return score(rows).reshape(1, 1, 1).repeat(1, len(rows), 1)  # no view: fully_shard warns of those

    handle = head.body.register_forward_hook(choose)
    try:
        with _in_place_of(head.output, in_place_of_logits):
            yield
    finally:
        handle.remove()


def logits_of_values(head: Head, model: nn.Module, inputs: Mapping[str, Any], values: Tensor) -> Any:
    """What ``model`` returns for ``inputs`` if its output layer gave ``values`` (V,) at every position."""

    def constant(hidden: Tensor) -> Tensor:
        return values.repeat(*hidden.shape[:-1], 1)

    with _in_place_of(head.output, constant):
        return model(**inputs)


@contextmanager
def _in_place_of(layer: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward  # the class's own again
