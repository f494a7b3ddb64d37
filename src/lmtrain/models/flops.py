"""How many floating-point operations a training step has to make, from the model's shapes.

Counted are the matrix products, two operations for each multiplication and addition: those of every linear layer
(Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1 and appendix: 2 × parameters × positions in
the forward pass, twice that in the backward pass) and those of attention (query × key and weights × value; half of
them when each token sees only what comes before it). The output head is counted where something is predicted.
Not counted: look-ups, norms, softmax, activations, dropout, the optimizer, and whatever a program does on top, such as
multiplying padding or computing the forward pass a second time. So two programs that do the same step have the same
number, and operations per second over the machine's peak is *model FLOP/s utilisation* as in Chowdhery et al. 2022
(PaLM, appendix B).

The backward pass makes a product for the gradient of the weights, where they are trained, and one for that of the
input, where something before it is trained: full training 3 × forward, frozen weights 2 ×, nothing trained below 1 ×.
Modules are taken to run in the order in which they are registered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from lmtrain.models.sharding import shape_of

_NO_ATTENTION = ("linear", "mamba", "recurrent", "conv")  # parts of the names of layers that attend to no pairs
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do, however it is laid out: ``tokens`` without padding, how many positions are ``predicted``,
    and the ``squares`` of the lengths of the separate texts, summed, which attention needs."""

    tokens: int
    predicted: int
    squares: int

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.predicted + other.predicted, self.squares + other.squares)

    @property
    def length(self) -> float:
        """Of a text; of uneven ones the mean over their tokens."""
        return self.squares / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, slots=True)
class Products:
    """Floating-point operations of the body's linear layers, of attention, and of the head."""

    body: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        return self.body + self.attention + self.head


@dataclass(frozen=True, slots=True)
class _Cost:
    """Operations for one position (linear layers) or one pair of positions (attention)."""

    forward: float = 0.0
    backward: float = 0.0

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(self.forward + other.forward, self.backward + other.backward)


@dataclass(frozen=True, slots=True)
class _Attention:
    """``window``: how far a token sees to each side, itself not counted."""

    cost: _Cost
    window: float


@dataclass(frozen=True)
class ModelFlops:
    """The operations of one model as it stands: which weights are trained is read when it is made.

    >>> ModelFlops.of(model, causal=True).step(Work(tokens=2048, predicted=2040, squares=8 * 256**2))  # doctest: +SKIP
    """

    causal: bool
    body: _Cost
    head: _Cost
    attention: tuple[_Attention, ...]

    @classmethod
    def of(cls, model: nn.Module, *, causal: bool) -> ModelFlops:
        """Of a causal or masked model of ``transformers``, also inside a PEFT wrapper."""
        inner: Any = getattr(model, "get_base_model", lambda: model)()
        inside = _body(inner)
        body = head = _Cost()
        reached = False  # whether something before this module is trained
        for name, module in inner.named_modules():
            weights, trained = _products(name, module, inner.config)
            cost = _Cost(2 * weights, 2 * weights * (reached + trained))
            if module in inside:
                body += cost
            else:
                head += cost
            reached = reached or any(p.requires_grad for p in module.parameters(recurse=False))
        return cls(causal, body, head, tuple(_attention(inner, causal)))

    def forward(self, work: Work) -> Products:
        """The forward pass."""
        return self._products(work, "forward")

    def backward(self, work: Work) -> Products:
        """The backward pass."""
        return self._products(work, "backward")

    def step(self, work: Work) -> float:
        """Both passes of a step."""
        return self.forward(work).total + self.backward(work).total

    def _products(self, work: Work, which: str) -> Products:
        attention = sum(getattr(a.cost, which) * self._pairs(work, a.window) for a in self.attention)
        return Products(getattr(self.body, which) * work.tokens, attention, getattr(self.head, which) * work.predicted)

    def _pairs(self, work: Work, window: float) -> float:
        """Pairs of positions of which one sees the other. With a window and uneven lengths: as if all were
        :attr:`Work.length` long."""
        if window >= work.length:
            return (work.squares + work.tokens) / 2 if self.causal else work.squares
        beyond = window * (window + 1) / work.length  # what the ends of a text cut off, for each of its tokens
        seen = window + 1 - beyond / 2 if self.causal else 2 * window + 1 - beyond
        return work.tokens * seen


def _body(model: Any) -> set[nn.Module]:
    """The modules that run at every position: all but the output head with its transform."""
    base = getattr(model, getattr(model, "base_model_prefix", "") or " ", None)
    if isinstance(base, nn.Module):
        return set(base.modules())
    head = model.get_output_embeddings()
    return set(model.modules()) - (set(head.modules()) if head is not None else set())


def _products(name: str, module: nn.Module, config: Any) -> tuple[float, bool]:
    """(weights of the products with ``module``'s own matrices, whether they are trained)."""
    if isinstance(module, nn.Embedding):
        return 0, False
    own = [p for p in module.parameters(recurse=False) if len(shape_of(p)) >= 2]
    count: float = sum(math.prod(shape_of(p)) for p in own)
    if isinstance(module, nn.Linear):  # a quantized one keeps its weights packed
        count = module.in_features * module.out_features
    return count * _times(name, config.get_text_config()), any(p.requires_grad for p in own)


def _times(name: str, config: Any) -> float:
    """How often a token passes through a module: not through every expert, and through ALBERT's layers repeatedly."""
    parts = name.split(".")
    if "experts" in parts and getattr(config, "num_experts_per_tok", None):
        return float(config.num_experts_per_tok / next(n for a in _EXPERTS if (n := getattr(config, a, None))))
    if "albert_layer_groups" in parts:
        return float(config.num_hidden_layers / config.num_hidden_groups)
    return 1.0


def _attention(model: Any, causal: bool) -> Iterator[_Attention]:
    """One for each layer with attention."""
    config = model.config.get_text_config()
    heads, layers = (getattr(config, name, None) for name in ("num_attention_heads", "num_hidden_layers"))
    if not isinstance(heads, int) or not isinstance(layers, int):
        return
    side = getattr(config, "head_dim", None) or config.hidden_size // heads
    values = getattr(config, "v_head_dim", None) or side
    keys = getattr(config, "qk_head_dim", None) or side
    forward = 2 * heads * (keys + values)
    trained = _layers_reached(model, layers)
    for window, reached in zip(_windows(config, layers, causal), trained, strict=True):
        if window is not None:
            yield _Attention(_Cost(forward, 2 * forward * reached), window)


def _windows(config: Any, layers: int, causal: bool) -> Iterator[float | None]:
    """For each layer how far its attention reaches; None for one without."""
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or [None] * layers
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window is None and getattr(config, "attention_layers", None):
        window = config.window_size  # GPT-Neo
    for kind in kinds:
        if kind is not None and any(part in kind for part in _NO_ATTENTION):
            yield None
        elif window is None or kind in ("full_attention", "global"):
            yield math.inf
        else:  # a causal window counts the token itself
            yield window - 1 if causal else window


def _layers_reached(model: Any, layers: int) -> list[bool]:
    """For each layer whether something in it or before it is trained, so that its attention has a backward pass."""
    stack = next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == layers), None)
    if stack is None:  # layers that share their weights
        return [any(p.requires_grad for p in model.parameters())] * layers
    layer_of = {parameter: number for number, layer in enumerate(stack) for parameter in layer.parameters()}
    first, passed = layers, False
    for parameter in model.parameters():
        if parameter.requires_grad:
            first = layer_of.get(parameter, layers if passed else 0)
            break
        passed = passed or parameter in layer_of
    return [number >= first for number in range(layers)]
