"""From a number of parameters to the shape of a new model.

The rule, for a size P and the tokenizer's vocabulary:

* Every parameter counts, embeddings too; a tied output layer counts once, as the type has it.
* Widths are multiples of 64 (of 32 below 512, of 128 from 1,280), so that matrix products fill their tiles.
* Of all widths, each with the number of layers that comes nearest to P, take those within 5 % of P; of these the one
  whose width per layer is nearest to r = 64·√max(1, width/1,024).

r is 64 where small published models have it and 128 at a width of 4,096: GPT-2 and GPT-3 125M are 12 × 768 (Radford et
al., 2019; Brown et al., 2020, table 2.1), the smallest of Hoffmann et al., 2022 (table A9) run from 8 × 512 to
16 × 1,024, GPT-3 6.7B and Llama 7B are 32 × 4,096. It need not be exact: between a width of 30 and of 100 a layer
the loss at one size changes by a per cent or two (Kaplan et al., 2020, figure 5). ModernBERT is deeper by design,
22 × 768 and 28 × 1,024 (Warner et al., 2024), so there r begins at 35.

Heads are 64 wide (32 where the width is no multiple of 64, 128 from a width of 1,280: Hoffmann et al., table A9). Feed-
forward layers are as wide as the type has them, see :data:`KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lmtrain.config.model_size import parameters
from lmtrain.core.console import amount, counted
from lmtrain.core.errors import UserError

FLAG = "--model_size"
WITHIN = 0.05  # of the size asked for
_LEAST_LAYERS, _LEAST_WIDTH, _MOST_WIDTH = 2, 64, 32_768
_LOOKED_AT = 3  # widths on either side of the ratio: layers are whole, and so are key-value heads
_DEEPER_FROM = 1024  # the width from which models are published wider than 64 a layer


@dataclass(frozen=True, slots=True)
class Kind:
    """What follows from a width in one type: ``inner``, the feed-forward width, as a multiple of it (None: the type's
    own default); ``shared``, heads to a key-value head; ``ratio``, width per layer."""

    inner: float | None = None
    shared: int = 1
    ratio: float = 64.0


KINDS: dict[str, Kind] = {
    "gpt2": Kind(),  # 4 times, by itself
    "llama": Kind(8 / 3),  # Shazeer, 2020; Touvron et al., 2023
    "mistral": Kind(3.5, shared=4),  # Jiang et al., 2023: 14,336 of 4,096, 8 key-value heads of 32
    "bert": Kind(4),
    "roberta": Kind(4),
    "modernbert": Kind(1.5, ratio=35.0),  # Warner et al., 2024: 1,152 of 768
}


@dataclass(frozen=True, slots=True)
class Shape:
    """``parameters`` is what the model has, ``fields`` the settings of its configuration."""

    width: int
    layers: int
    parameters: int
    fields: dict[str, int]


Count = Callable[[Mapping[str, int]], int]
"""The parameters of a model with these settings, the user's own put over them."""


def solve(size: int, kind: Kind, count: Count, fixed: Mapping[str, Any]) -> Shape:
    """The shape for ``size`` parameters by the rule above.

    ``fixed`` are settings that the user gave: a ``hidden_size`` or ``num_hidden_layers`` in it is kept, and the size
    then met as nearly as that allows. Raises :class:`UserError` where ``size`` is less than the least model.
    """
    search = _Search(size, kind, count, fixed)
    least = search.shape(search.widths[0], search.least_layers)
    if least.parameters > size * (1 + WITHIN) and not {"hidden_size", "num_hidden_layers"} & fixed.keys():
        raise UserError(
            f"{amount(size)} parameters are too few with this vocabulary: the embeddings alone take most of "
            f"{amount(least.parameters)}, the smallest size ({least.layers} layers × {least.width}); ask for at least "
            f"{_up(least.parameters)}, or train a smaller vocabulary: lmtrain tokenizer --vocab_size",
            flag=FLAG,
        )
    return search.best()


def fields_of(width: int, layers: int, kind: Kind, heads: int | None = None) -> dict[str, int]:
    """The settings of a model of this width and depth; ``heads`` where the user gave their number."""
    heads = heads or width // head_width(width)
    fields = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    if kind.inner is not None:
        multiple = 64 if width < 1280 else 256
        fields["intermediate_size"] = math.ceil(round(kind.inner * width, 6) / multiple) * multiple
    if kind.shared > 1:
        divisors = [n for n in range(1, heads + 1) if heads % n == 0]
        fields["num_key_value_heads"] = min(divisors, key=lambda n: abs(math.log(n * kind.shared / heads)))
    return fields


def head_width(width: int) -> int:
    """128, 64 or 32; for a width of the user's own that none of them divides, the divisor nearest to 64."""
    for size, least in ((128, 1280), (64, 0), (32, 0)):
        if width >= least and width % size == 0:
            return size
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    return min(divisors, key=lambda n: abs(math.log(n / 64)))


class _Search:
    """Over widths; what a width costs is measured when it is first asked for."""

    def __init__(self, size: int, kind: Kind, count: Count, fixed: Mapping[str, Any]) -> None:
        self.size, self.kind, self.count = size, kind, count
        self.heads = fixed.get("num_attention_heads")
        self.layers = fixed.get("num_hidden_layers")
        width = fixed.get("hidden_size")
        self.widths = [width] if width else list(_widths(self.heads))
        self.least_layers = self.layers or _LEAST_LAYERS
        self._costs: dict[int, tuple[int, int]] = {}

    def cost(self, width: int) -> tuple[int, int]:
        """Parameters outside the layers, and of one layer. The layers of these types are all alike but for norms."""
        if width not in self._costs:
            few, more = (self.count(fields_of(width, n, self.kind, self.heads)) for n in (2, 3))
            self._costs[width] = (few - 2 * (more - few), more - few)
        return self._costs[width]

    def shape(self, width: int, layers: int) -> Shape:
        outside, layer = self.cost(width)
        return Shape(width, layers, outside + layers * layer, fields_of(width, layers, self.kind, self.heads))

    def nearest(self, width: int) -> Shape:
        outside, layer = self.cost(width)
        return self.shape(width, self.layers or max(self.least_layers, round((self.size - outside) / layer)))

    def error(self, shape: Shape) -> float:
        return abs(shape.parameters / self.size - 1)

    def slant(self, shape: Shape) -> float:
        """How much wider than the rule's ratio, as a logarithm; rises with the width."""
        ratio = self.kind.ratio * math.sqrt(max(1.0, shape.width / _DEEPER_FROM))
        return math.log(shape.width / shape.layers / ratio)

    def best(self) -> Shape:
        if self.layers:
            at = self._first(lambda shape: shape.parameters >= self.size)
            near = [self.nearest(width) for width in self.widths[max(0, at - 1) : at + 1]]
            return min(near, key=self.error)
        at = self._first(lambda shape: self.slant(shape) >= 0 or shape.parameters > self.size * (1 + WITHIN))
        sides = (reversed(self.widths[:at]), self.widths[at:])
        found = [shape for widths in sides for shape in islice(self._meeting(widths), _LOOKED_AT)]
        if not found:  # what the user fixed leaves none
            return min((self.nearest(width) for width in self.widths[max(0, at - 1) : at + 1]), key=self.error)
        return min(found, key=lambda shape: (abs(self.slant(shape)), self.error(shape)))

    def _meeting(self, widths: Iterable[int]) -> Iterator[Shape]:
        """Those of ``widths`` that meet the size, as long as the fewest layers are not too many."""
        for width in widths:
            shape = self.nearest(width)
            if self.error(shape) <= WITHIN:
                yield shape
            elif shape.layers == self.least_layers and shape.parameters > self.size:
                return

    def _first(self, is_over: Callable[[Shape], bool]) -> int:
        """The place of the first width for which it holds; by halving, since a width costs two models."""
        low, high = 0, len(self.widths) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if is_over(self.nearest(self.widths[middle])) else (middle + 1, high)
        return low


def _widths(heads: int | None) -> Iterator[int]:
    """All widths of the rule; of those, the ones that the user's number of heads divides."""
    width = _LEAST_WIDTH
    while width <= _MOST_WIDTH:
        if not heads or width % heads == 0:
            yield width
        width += 32 if width < 512 else 64 if width < 1280 else 128


def _up(parameters: int) -> str:
    """A size to type, not below ``parameters``: 3.4m."""
    unit, name = (10**9, "b") if parameters >= 10**9 else (10**6, "m")
    return f"{math.ceil(parameters / unit * 10) / 10:g}{name}"


def told(shape: Shape, asked: str, vocabulary: int, embeddings: int) -> str:
    """The line for the user: what was chosen, and how much of it the vocabulary takes."""
    heads = shape.fields["num_attention_heads"]
    off = shape.parameters / parameters(asked) - 1
    missed = f" ({off:+.0%}, the nearest there is)" if abs(off) > WITHIN else ""
    return (
        f"{FLAG} {asked}: {amount(shape.parameters, 'parameters')}{missed}, {shape.layers} layers × {shape.width}, "
        f"{counted(heads, 'head')} of {shape.width // heads}; {embeddings / shape.parameters:.0%} of them for the "
        f"{vocabulary:,} tokens of the vocabulary"
    )
