"""How ``DistributedDataParallel`` wraps a model: as cheaply as the model, and exact resuming, allow.

Gradients lie in the buckets that are exchanged (``gradient_as_bucket_view``): no second copy of them, and no copying.

The library looks in every step for weights that got no gradient (``find_unused_parameters``), which walks the whole
graph and takes an exchange of its own: 12 % of a small model's step on a CPU. Where passes beforehand give a gradient
to every weight, and the model is not one whose passes differ, there is nothing to look for. But without looking DDP
puts its buckets into another order after its first step, and a run that resumes has a first step more: the sum of four
gradients then comes out in another order, and in other bits. The sum of two has no order, so two processes do not look.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import gather

from lmtrain.engine.speed.job import Job
from lmtrain.objectives import IGNORED

_VARYING = ("expert", "layerdrop", "layer_drop")  # in the names of settings: parts that not every pass goes through


def settle_ddp(trainer: Job) -> None:
    """Settle how ``trainer`` is going to wrap its model; all its processes call this, before it is wrapped.

    ``--ddp_find_unused_parameters`` is obeyed when it is given.
    """
    handler = getattr(trainer.accelerator, "ddp_handler", None)
    if trainer.args.world_size == 1 or trainer.is_sharded or handler is None or trainer.train_dataset is None:
        return
    handler.gradient_as_bucket_view = True
    asked = trainer.args.ddp_find_unused_parameters is not None
    if trainer.args.world_size == 2 and not asked and handler.find_unused_parameters:
        found = False
        try:
            found = _every_pass_is_alike(trainer.model) and _all_get_one(trainer)
        finally:  # the other process waits for this one's word, whatever happened
            agreed = bool(gather(torch.tensor([int(found)], device=trainer.args.device)).min())  # each has its examples
        handler.find_unused_parameters = not agreed


def _every_pass_is_alike(model: Any) -> bool:
    """Known for models of ``transformers`` alone: another's code may go any way."""
    inner = getattr(model, "get_base_model", lambda: model)()
    if not type(inner).__module__.startswith("transformers."):
        return False
    return not any(value for name, value in _settings(inner.config.to_dict()) if any(v in str(name) for v in _VARYING))


def _settings(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _settings(value)
        else:
            yield str(name), value  # ids of labels are numbers


def _all_get_one(trainer: Job) -> bool:
    """Whether a pass over one example gives every trained weight a gradient, also when nothing in it is predicted: a
    batch may be left without labels, and a process without an example."""
    if trainer.first_examples(1) is None:
        return False
    batch = trainer.batch_of(range(1))
    for labels in (batch["labels"], torch.full_like(batch["labels"], IGNORED)):
        with trainer.leaving_no_trace():
            trainer.one_pass({**batch, "labels": labels})
            if any(weight.grad is None for weight in trainer.model.parameters() if weight.requires_grad):
                return False
    return True
