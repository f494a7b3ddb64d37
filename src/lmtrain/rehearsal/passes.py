"""A forward and backward pass over the longest examples, on the real model: gradients, time, memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lmtrain.core.allocator import is_out_of_memory
from lmtrain.core.clock import now
from lmtrain.core.console import counted
from lmtrain.core.errors import UserError
from lmtrain.engine.speed.batch_size import CHECKPOINTING
from lmtrain.engine.speed.memory import PeakMemory, needed_by
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.flops import ModelFlops, Work
from lmtrain.models.layers import no_more_compiling
from lmtrain.rehearsal.cut_off import cut_off, same_draws
from lmtrain.rehearsal.untouched import same_model

_UTILISED = 0.3  # of the machine's peak: an estimate before anything was measured
_LEAST_S = 0.002  # that a pass takes, however small
_WORTH_REPEATING = 0.05  # seconds: below, the first pass is mostly getting ready, and a second one costs nothing
_NAMES = 3


@dataclass(frozen=True)
class Pass:
    """``examples`` of a micro-batch of ``of``; ``held`` bytes before it, ``activations`` bytes in it, ``lines`` worth
    saying."""

    examples: int
    of: int
    tokens: int
    seconds: float
    held: int
    activations: int
    lines: tuple[str, ...] = ()


def seconds_of(trainer: LMTrainer, numbers: Sequence[int]) -> float:
    """What a pass over those examples may take, from its products and this machine's peak; with a length for each."""
    lengths = _lengths(trainer)
    chosen = lengths[np.asarray(numbers)].astype(np.int64)
    tokens = int(chosen.sum())
    try:
        flops = trainer.meter.flops or ModelFlops.of(trainer.model, causal=trainer.objective.shifted)
    except (AttributeError, TypeError, KeyError):  # not a model of transformers
        return _LEAST_S
    work = Work(tokens, tokens, int((chosen**2).sum()))
    return _LEAST_S + flops.step(work) / (_UTILISED * trainer.peak.flops)


def longest(trainer: LMTrainer) -> list[int]:
    """The numbers of the longest examples, as many as a micro-batch has, the longest first."""
    lengths = _lengths(trainer)
    count = min(trainer.args.train_batch_size, len(lengths))
    if lengths.min() == lengths.max():
        return list(range(count))
    found = np.argpartition(-lengths, count - 1)[:count]
    return [int(i) for i in sorted(found, key=lambda i: (-lengths[i], i))]


def _lengths(trainer: LMTrainer) -> np.ndarray:
    dataset: Any = trainer.train_dataset
    lengths = getattr(dataset, "lengths", None)
    return np.ones(len(dataset), np.int64) if lengths is None else np.asarray(lengths)


def try_pass(trainer: LMTrainer, numbers: Sequence[int], micro_batch: int, flag: str) -> Pass:
    """Run the examples forward and backward and look at every gradient; nothing stays of it.

    ``flag`` names the model. Raises :class:`UserError` for what does not fit into memory, for gradients that are no
    numbers, and for tensors that are trained and that no gradient reaches though the loss depends on them.
    """
    device, model = trainer.args.device, trainer.model
    memory = PeakMemory(device, tidy=False)
    recomputes = getattr(trainer.args, CHECKPOINTING) and hasattr(model, f"{CHECKPOINTING}_enable")
    try:
        with same_model(model), no_more_compiling() if trainer.fast_paths.compiled else nullcontext():
            if recomputes:
                getattr(model, f"{CHECKPOINTING}_enable")({"use_reentrant": False})
            batch = trainer.batch_of(numbers)
            same_draws()
            seconds = _timed(trainer, batch)
            growth = memory.bytes - memory.start
            lines = _look_at_gradients(trainer, batch, flag)
            if seconds < _WORTH_REPEATING:
                seconds = min(seconds, _timed(trainer, batch))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise _too_large(trainer, numbers) from error
    finally:
        if recomputes:
            getattr(model, f"{CHECKPOINTING}_disable")()
    tokens = int(_lengths(trainer)[np.asarray(numbers)].sum())
    activations = max(0, growth - needed_by(model)["gradients"])
    return Pass(len(numbers), micro_batch, tokens, seconds, memory.start, activations, tuple(lines))


def _timed(trainer: LMTrainer, batch: dict[str, Any]) -> float:
    began = now(trainer.args.device)
    trainer.one_pass(batch)
    return now(trainer.args.device) - began


def _too_large(trainer: LMTrainer, numbers: Sequence[int]) -> UserError:
    tokens = int(_lengths(trainer)[np.asarray(numbers)].max())
    return UserError(
        f"{counted(len(numbers), 'example')} of up to {counted(tokens, 'token')} at once do not fit into memory; "
        "--auto_batch finds a number that does and keeps the step as it is",
        flag="--per_device_train_batch_size",
    )


def _look_at_gradients(trainer: LMTrainer, batch: dict[str, Any], flag: str) -> list[str]:
    trained = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    without = [name for name, weight in trained.items() if weight.grad is None]
    there = {name: weight.grad for name, weight in trained.items() if weight.grad is not None}
    if not there or 2 * len(without) >= len(trained):
        raise UserError(
            f"the loss does not depend on {len(without)} of the {counted(len(trained), 'trained tensor')} "
            f"({_some(without)}), which would stay as they are; something in the model cuts them off",
            flag=flag,
        )
    wrong = _not_finite(there)
    if wrong:
        raise _no_numbers(trainer, wrong, len(trained), flag)
    args = trainer.args
    asked = args.ddp_find_unused_parameters
    if without and args.world_size > 1 and (asked is False or (asked is None and getattr(args, CHECKPOINTING))):
        raise UserError(
            f"{counted(len(without), 'trained tensor')} get no gradient ({_some(without)}), and processes that train "
            "together would wait for it; set it to true",
            flag="--ddp_find_unused_parameters",
        )
    if not without:
        return []
    if wrong := cut_off(trainer, batch, without, _NAMES):
        raise UserError(
            f"the loss changes with {', '.join(wrong)}{' and perhaps others' if len(wrong) == _NAMES else ''}, and no "
            "gradient comes to it: something in the model cuts it off (detach, no_grad), and it would stay as it is; "
            "--skip_check trains all the same",
            flag=flag,
        )
    verb = "gets no gradient and stays as it is" if len(without) == 1 else "get no gradient and stay as they are"
    return [f"{len(without)} of {counted(len(trained), 'trained tensor')} {verb}: {_some(without)}"]


def _no_numbers(trainer: LMTrainer, wrong: list[str], count: int, flag: str) -> UserError:
    spoiled = _not_finite({name: weight.detach() for name, weight in trainer.model.named_parameters()})
    if spoiled:
        return UserError(
            f"{counted(len(spoiled), 'tensor')} of the model hold values that are no numbers ({_some(spoiled)}), so "
            "nothing can be learned from it; take another checkpoint",
            flag=flag,
        )
    precision = "--precision fp32 may help" if trainer.args.fp16 else "look at the model and at these examples"
    return UserError(
        f"on the longest examples the gradients of {len(wrong)} of {counted(count, 'trained tensor')} are no numbers "
        f"({_some(wrong)}); {precision}",
        flag="--precision" if trainer.args.fp16 else flag,
    )


def _not_finite(tensors: dict[str, Any]) -> list[str]:
    """The names of those with a value that is none: one number of each is brought from the device, all at once."""
    if not tensors:
        return []
    sizes = [torch.linalg.vector_norm(tensor.float(), float("inf")) for tensor in tensors.values() if tensor.numel()]
    finite = torch.isfinite(torch.stack([size.to(sizes[0].device) for size in sizes])).tolist()
    names = [name for name, tensor in tensors.items() if tensor.numel()]
    return [name for name, good in zip(names, finite, strict=True) if not good]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")
