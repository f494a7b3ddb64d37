"""A Trainer that knows what the steps of each process go into."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lmtrain.engine.distributed.ranks import Ranks
from lmtrain.engine.trainer.stopping import StoppingTrainer


class TimingTrainer(StoppingTrainer):
    """A Trainer that counts what each process waits for in exchanges; see :mod:`lmtrain.engine.distributed.ranks`."""

    ranks: Ranks

    def _sum_of_all(self, mine: Tensor) -> Tensor:
        if not self.ranks.are_measured:
            return super()._sum_of_all(mine)
        with self.ranks.exchanges.waiting():
            return super()._sum_of_all(mine)

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.ranks.are_measured:
            return super().training_step(model, *args, **kwargs)
        with self.ranks.exchanges.step(model):
            return super().training_step(model, *args, **kwargs)

    def _watch(self, loss: Tensor) -> None:
        """The exchange in the backward pass of ``loss``, which is that of the step's last micro-batch."""
        if self.ranks.are_measured and self.accelerator.sync_gradients:
            self.ranks.exchanges.watch_backward(loss)

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        if "loss" in logs and self.is_in_train:
            told_apart = not self.is_sharded or self.ranks.exchanges.sees_shards
            logs.update(self.ranks.lap(self.state, told_apart=told_apart))
        super().log(logs, start_time)
