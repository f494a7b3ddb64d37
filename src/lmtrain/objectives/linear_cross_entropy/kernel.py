"""What a kernel is: a name and its settings, as ``decisions.json`` keeps them; and what every kernel computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Name = Literal["plain", "chunked", "compiled", "torch", "liger"]

# 128 MiB of fp32, 667 rows of 50,257: a product of few rows waits for the weight, and with D = 128 a chunk of 167
# rows took 1.75 times as long as one of 512 (forward, two cores).
_LOGITS_OF_A_CHUNK = {"cpu": 1 << 25}
_LOGITS_ELSEWHERE = 1 << 26  # a GPU wants large products more than a cache
_FEWEST = 16  # rows below which a product only waits for the weight to arrive
_CACHED = 1 << 20  # logits of a CPU thread; 8 to 64 rows of 50,257 in bf16 did equally well, 512 took 2.5 times as long


@dataclass(frozen=True, slots=True)
class Kernel:
    """How the loss is computed. Every kernel gives the same result, within rounding.

    ``name``: ``plain`` holds all logits (N, V); ``chunked`` those of ``positions`` rows at a time, and makes
    the gradients as it goes; ``compiled`` is ``chunked`` with its elementwise part compiled; ``torch`` and
    ``liger`` are those of PyTorch and of Liger-Kernel. ``positions`` None: a number that suits the device.
    ``vocabulary_first`` lays the logits of a chunk out as (V, positions), which some matrix libraries write
    up to twice as fast when D is small beside V.
    """

    name: Name = "chunked"
    positions: int | None = None
    vocabulary_first: bool = False

    def __post_init__(self) -> None:
        if self.name not in get_args(Name):
            raise ValueError(f"no kernel {self.name!r}; there are {', '.join(get_args(Name))}")
        if self.positions is not None and self.positions < 1:
            raise ValueError(f"a chunk of {self.positions} positions; it takes at least 1")

    def rows(self, vocab_size: int, device: torch.device) -> int:
        """Positions in a chunk."""
        if self.positions is not None:
            return self.positions
        logits = _LOGITS_OF_A_CHUNK.get(device.type, _LOGITS_ELSEWHERE)
        return max(_FEWEST, logits // vocab_size)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Kernel:
        """The inverse of :meth:`as_json`. Raises :class:`ValueError` for an unknown kernel."""
        return cls(**values)

    def __str__(self) -> str:
        size = "" if self.positions is None else f" by {self.positions} positions"
        return f"{self.name}{size}{', vocabulary first' if self.vocabulary_first else ''}"


def rows_at_once(vocab_size: int, device: torch.device) -> int:
    """Rows of logits to make something of at once: on a CPU as many as the caches of its threads hold."""
    logits = _CACHED * torch.get_num_threads() if device.type == "cpu" else _LOGITS_ELSEWHERE
    return max(1, logits // vocab_size)


PLAIN = Kernel("plain")
DEFAULT = Kernel()


@dataclass(frozen=True, slots=True)
class Terms:
    """What is added up for each position: see :func:`lmtrain.objectives.linear_cross_entropy`."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    accuracy: bool = False


@dataclass(frozen=True, slots=True)
class LinearLoss:
    """Sums over the predicted positions; all of shape ().

    ``loss`` in nats, weighted, in the graph; ``weight`` the sum of the weights; ``count`` (int64) the
    predicted positions; ``correct`` (int64) how many have their label as the first of the most likely
    tokens, None where it was not asked for.
    """

    loss: Tensor
    weight: Tensor
    count: Tensor
    correct: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """The predicted positions alone, as every kernel gets them.

    ``hidden`` (N, D), ``weight`` (V, D), ``bias`` (V,) or None, ``labels`` (N,) without ignored ones,
    ``weights`` (N,) fp32 or None. ``compute`` is the format of the products; ``exact`` that of the softmax
    and the sums of a position; ``total`` that of the sum over the positions.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    labels: Tensor
    weights: Tensor | None
    terms: Terms
    compute: torch.dtype
    total: torch.dtype

    @property
    def exact(self) -> torch.dtype:
        return torch.float64 if self.compute is torch.float64 else torch.float32
