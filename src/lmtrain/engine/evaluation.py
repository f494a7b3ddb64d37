"""Evaluation as sums: what is added up over batches and processes, and the figures it ends in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lmtrain.core.children import begin_loader
from lmtrain.engine.batches.sampling import RankBatches
from lmtrain.evaluate.measures import bits_per_byte, perplexity
from lmtrain.objectives import LossSums


class EvaluationLoader:
    """The batches that this process evaluates, each with whether it counts.

    A batch that does not count is run only because a sharded model needs every process in its forward pass: with
    ``equal`` all have as many. An iterable data set is read by every process, and each takes every ``world``-th batch.
    ``lengths`` of the examples puts like with like, so that little is padded; see :class:`RankBatches`.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        collate: Callable[..., Any],
        *,
        rank: int = 0,
        world: int = 1,
        equal: bool = False,
        lengths: np.ndarray | None = None,
        **options: Any,
    ) -> None:
        self.dataset = dataset
        self._own: int | None = None
        self.common_batches = 0  # that no process has fewer than; of an iterable data set, as far as it was read
        self._rank, self._world, self._equal = rank, world, equal
        options["worker_init_fn"] = begin_loader
        if isinstance(dataset, IterableDataset):
            self._loader = DataLoader(dataset, batch_size=batch_size, collate_fn=collate, **options)
        else:
            batches = RankBatches(len(dataset), batch_size, rank=rank, world=world, equal=equal, lengths=lengths)
            self._own, self.common_batches = batches.own, batches.common
            self._loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate, **options)

    def __len__(self) -> int:
        """Batches of this process; TypeError for an iterable data set that does not know its length."""
        batches = len(self._loader)
        return batches if self._own is not None else len(range(self._rank, batches, self._world))

    def __iter__(self) -> Iterator[tuple[Any, bool]]:
        if self._own is None:
            yield from self._every_world_th()
        else:
            for number, batch in enumerate(self._loader):
                yield batch, number < self._own

    def _every_world_th(self) -> Iterator[tuple[Any, bool]]:
        mine: Any = None
        batch: Any = None
        self.common_batches = 0
        for number, batch in enumerate(self._loader):
            if number % self._world == self._rank:
                mine = batch
            if number % self._world == self._world - 1:  # each process has one
                self.common_batches += 1
                yield mine, True
                mine, batch = None, None
        if mine is not None:
            yield mine, True
        elif self._equal and batch is not None:
            yield batch, False


class RunningSums:
    """Loss, predicted tokens, correct tokens and examples so far: four numbers on the device.

    Nothing is read back while batches run, so the device never waits. fp64 where there is one (not on MPS):
    counts are exact up to 2⁵³ and the order of batches does not show in the loss. ``apart``: two more, loss and
    tokens of the examples that hold a key token.
    """

    def __init__(self, device: torch.device, *, apart: bool = False) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.values = torch.zeros(6 if apart else 4, dtype=dtype, device=device)
        self._apart = apart

    def add(self, sums: LossSums, examples: int) -> None:
        correct = sums.correct if sums.correct is not None else sums.count * 0
        added = [sums.loss.detach(), sums.count, correct, sums.count.new_tensor(examples)]
        if self._apart:
            if sums.keyed is None:
                raise ValueError("these sums do not keep the examples with key tokens apart")
            added += [sums.keyed.loss.detach(), sums.keyed.count]
        self.values += torch.stack([value.to(self.values) for value in added])

    def total(self, reduce: Callable[[Tensor], Tensor] | None = None) -> Totals:
        """Add up the processes' sums with ``reduce``, once, and read them."""
        values = reduce(self.values) if reduce else self.values
        loss, count, correct, examples, *keyed = values.tolist()
        apart = (keyed[0], int(keyed[1])) if self._apart else None
        return Totals(loss, int(count), int(correct), int(examples), apart)


@dataclass(frozen=True, slots=True)
class Totals:
    """An evaluation: the summed loss in nats, predicted tokens, how many were right, and examples.

    ``keyed``: loss and tokens of the examples that hold a key token, where those are looked for.
    """

    loss: float
    tokens: int
    correct: int
    examples: int
    keyed: tuple[float, int] | None = None

    def metrics(self, *, text_tokens: int | None = None, text_bytes: int | None = None) -> dict[str, float]:
        """The one division. NaN where nothing was predicted, since 0 would look like a perfect loss.

        ``text_tokens`` and ``text_bytes`` describe the whole text, for bits per byte.
        """
        loss = self.loss / self.tokens if self.tokens else math.nan
        metrics = {
            "loss": loss,
            "perplexity": perplexity(loss),
            "accuracy": self.correct / self.tokens if self.tokens else math.nan,
            "tokens": self.tokens,
        }
        if text_tokens and text_bytes:
            metrics["bits_per_byte"] = bits_per_byte(loss, text_tokens, text_bytes)
        return metrics | self._apart()

    def _apart(self) -> dict[str, float]:
        """Loss, perplexity and tokens of the examples with key tokens and of those without."""
        if self.keyed is None:
            return {}
        metrics: dict[str, float] = {}
        keyed, count = self.keyed
        for name, loss, tokens in (("with", keyed, count), ("without", self.loss - keyed, self.tokens - count)):
            mean = loss / tokens if tokens else math.nan
            metrics[f"loss_{name}_keys"] = mean
            metrics[f"perplexity_{name}_keys"] = perplexity(mean)
            metrics[f"tokens_{name}_keys"] = tokens
        return metrics
