"""What the original does after a micro-batch: a line, a checkpoint, an evaluation, and at an epoch's end everything.

The order is its own (``train_validate`` in gpt2_ft.py): line, LoRA checkpoint, evaluation, and at the end of the epoch
the checkpoint of all tensors, which takes the place of a LoRA checkpoint of the same step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lmtrain.core.runlog import RunLog
from lmtrain.evaluate.measures import perplexity
from lmtrain.recipes.gpt2_ft.log import RULE, Losses, evaluation_line, mean, show, training_line
from lmtrain.recipes.gpt2_ft.order import Plan


@dataclass(frozen=True, slots=True)
class Intervals:
    """Micro-batches from one to the next."""

    log: int = 100
    save: int = 500
    evaluate: int = 2000


@dataclass
class Recorder:
    """The observer of a run.

    ``evaluate`` gives the loss of an evaluation, counted from 0; ``save`` writes a checkpoint by its number, of all
    tensors or of LoRA's; ``show`` takes a line, ``log`` the same as an event; ``clock`` gives seconds.
    """

    plan: Plan
    intervals: Intervals
    evaluate: Callable[[int], float]
    save: Callable[[int, bool], Any]
    show: Callable[[str], None] = show
    log: RunLog | None = None
    clock: Callable[[], float] = time.monotonic
    evaluations: list[dict[str, float]] = field(default_factory=list)
    _losses: Losses = field(default_factory=Losses)
    _best: float | None = None
    _since: float = 0.0

    def begin(self, micro_batch: int) -> None:
        if micro_batch < self.plan.total:
            self._begin_epoch(self.plan.epoch(micro_batch + 1))

    def after(self, micro_batch: int, rate: float, loss: Tensor) -> None:
        self._losses.add(loss)
        if micro_batch % self.intervals.log == 0:
            self._line(micro_batch, rate)
        if micro_batch % self.intervals.save == 0 and not self.plan.ends_epoch(micro_batch):
            self.save(micro_batch, False)
        if micro_batch % self.intervals.evaluate == 0:
            self._evaluation(micro_batch)
        if self.plan.ends_epoch(micro_batch):
            self.save(micro_batch, True)
            if micro_batch < self.plan.total:
                self._losses.start_over()
                self._best = None
                self._begin_epoch(self.plan.epoch(micro_batch + 1))

    # ---- what a stopped run goes on with -----------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Plain values that :meth:`restore` takes: what the next line and the next evaluation depend on."""
        return {"losses": self._losses.read(), "best": self._best, "evaluations": self.evaluations}

    def restore(self, state: dict[str, Any]) -> None:
        self._losses.start_over(state["losses"])
        self._best = state["best"]
        self.evaluations = list(state["evaluations"])

    # -------------------------------------------------------------------------------------------------

    def _begin_epoch(self, epoch: int) -> None:
        self.show(f"start to train the model................ {epoch}")
        self._since = self.clock()

    def _line(self, micro_batch: int, rate: float) -> None:
        losses = self._losses.read()
        now = self.clock()
        milliseconds = (now - self._since) * 1000 / self.intervals.log
        epoch, batches = self.plan.epoch(micro_batch), self.plan.place(micro_batch)
        self.show(training_line(epoch, micro_batch, batches, rate, milliseconds, losses))
        self._event(
            "train", step=micro_batch, epoch=epoch, loss=losses[-1], average_loss=mean(losses), learning_rate=rate
        )
        self._losses.start_over()
        self._since = self.clock()

    def _evaluation(self, micro_batch: int) -> None:
        began = self.clock()
        loss = self.evaluate(micro_batch // self.intervals.evaluate - 1)
        found = perplexity(loss)
        self._best = found if self._best is None else min(self._best, found)
        number = micro_batch // self.intervals.evaluate
        self.evaluations.append({"step": micro_batch, "loss": loss})
        self.show(RULE)
        self.show(evaluation_line(number, micro_batch, self.clock() - began, loss, self._best))
        self.show(RULE)
        self._event("evaluation", step=micro_batch, eval_loss=loss, eval_perplexity=found)

    def _event(self, kind: str, **values: Any) -> None:
        if self.log is not None:
            self.log.event(kind, **values)
