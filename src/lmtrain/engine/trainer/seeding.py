"""Dropout as a function of counters, as the order of the examples is."""

from __future__ import annotations

from typing import Any

import torch

from lmtrain.core.streams import derive
from lmtrain.engine.trainer.guarding import GuardingTrainer


class SeedingTrainer(GuardingTrainer):
    """A Trainer whose random numbers follow from (seed, step, micro-batch, rank), whatever was drawn before.

    It costs some microseconds a micro-batch. Activation checkpointing replays the state that its forward pass found.
    """

    _micro: int = 0  # micro-batches of this step so far

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        self._micro = 0  # it is asked for once a step
        return super().get_batch_samples(*args, **kwargs)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        rank = self.args.process_index // self.get_tp_size()  # ranks that share a batch drop the same
        seed = derive(self.args.seed, "dropout", self.state.global_step, self._micro, rank) % 2**63
        _reseed(self.args.device, seed)
        self._micro += 1
        return super().training_step(model, inputs, num_items_in_batch)


def _reseed(device: torch.device, seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)
