"""Losses and gradients that are no longer numbers, and losses that stand out: what a run makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from lmtrain.core.errors import UserError

MARKS: Final = ("spike", "bad_steps")  # what a log line says beside its figures; see BadSteps, is_spike
LOOKED_BACK: Final = 50  # logged losses that a new one is compared with
_FEWEST = 20  # of them: fewer say little about how much losses vary
_DEVIATIONS = 6.0
_LEAST = 0.01  # of the median: losses that hardly vary do not make every flutter a spike


@dataclass(frozen=True)
class Guarding:
    """What to do about steps whose loss or gradient is not finite. None of them changes a weight.

    Args:
        max_bad_steps: training stops (:class:`BadNumbersError`) after so many in a row.
        report: called with each: step, loss, grad_norm, examples (numbers in the data set), in_a_row.
    """

    max_bad_steps: int = 10
    report: Callable[[dict[str, Any]], None] | None = None


class BadNumbersError(UserError):
    """Steps in a row without a finite gradient: nothing is learned any more."""


class BadSteps(TrainerCallback, ExportableState):
    """Counts steps that made no update; its counts go into checkpoints, so that a resumed run goes on counting."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.in_a_row = 0
        self.since_log = 0
        self.left_out = 0  # losses that are in no sum, in all
        self.left_out_since_log = 0

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": dict(vars(self))}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == 0:
            self.forget()

    def correct(self, logs: dict[str, Any], steps: int) -> None:
        """Make the loss of a log line over ``steps`` steps the mean of those that are numbers; say how many were bad.

        Without one that is a number it is nan.
        """
        if self.left_out_since_log:
            numbers = steps - self.left_out_since_log
            logs["loss"] = logs["loss"] * steps / numbers if numbers > 0 else math.nan
        if self.since_log:
            logs["bad_steps"] = self.since_log
        self.since_log = self.left_out_since_log = 0


def is_spike(loss: float, earlier: Sequence[float]) -> bool:
    """Whether ``loss`` lies more than 6 median absolute deviations above the median of the ``earlier`` ones.

    For normally distributed losses these are about four standard deviations, and unlike those they are not widened by
    the outliers themselves (Leys et al. 2013, Journal of Experimental Social Psychology 49(4), 764-766). A deviation
    counts as 1 % of the median at least; before there are twenty finite losses nothing stands out.
    """
    finite = [value for value in earlier if math.isfinite(value)]
    if len(finite) < _FEWEST:
        return False
    middle = median(finite)
    deviation = median(abs(value - middle) for value in finite)
    return loss > middle + _DEVIATIONS * max(deviation, _LEAST * abs(middle))
