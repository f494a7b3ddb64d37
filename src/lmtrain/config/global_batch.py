"""The examples of a step over all processes, and how they are divided: ``--global_batch_size``.

A step sums over its examples and divides once, so how it is divided changes nothing::

    --global_batch_size 16     1 process    8 at once, twice
                               2 processes  8 at once
                               4 processes  4 at once
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lmtrain.config.options import Resolved
from lmtrain.core.errors import Problems, UserError
from lmtrain.core.launching import processes

DEFAULT_MICRO_BATCH: Final = 8  # the library's default of --per_device_train_batch_size
SIZES: Final = frozenset({"global_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps"})
_FLAG, _MICRO = "--global_batch_size", "--per_device_train_batch_size"


@dataclass(frozen=True, slots=True)
class Division:
    """Of a step for each process: ``micro_batch`` examples at once, ``accumulation`` times."""

    micro_batch: int
    accumulation: int

    @property
    def arguments(self) -> dict[str, int]:
        """As ``transformers.TrainingArguments`` takes it."""
        return {
            "per_device_train_batch_size": self.micro_batch,
            "gradient_accumulation_steps": self.accumulation,
        }


def divide(examples: int, processes: int, micro_batch: int | None = None, flag: str = _FLAG) -> Division:
    """Share a step of ``examples`` equally among ``processes``, ``micro_batch`` at once, or at most 8 where it is None.

    Raises :class:`UserError` with the nearest numbers that go, about ``flag`` (the option that gave ``examples``).
    """
    mine, rest = divmod(examples, processes)
    if rest:
        sizes = _or(n for n in (mine * processes, (mine + 1) * processes) if n)
        nearest = _neighbours(examples, processes)
        numbers = _or(nearest)
        raise UserError(
            f"{examples} examples a step cannot be shared equally by {processes} processes; give {_FLAG} {sizes}, or "
            f"start {numbers} process{'' if nearest == [1] else 'es'}",
            flag=flag,
        )
    if micro_batch is None:
        return largest_division(mine, DEFAULT_MICRO_BATCH)
    if mine % micro_batch:
        whose = f"each of {processes} processes takes {mine} of" if processes > 1 else "a step is"
        raise UserError(
            f"{micro_batch} at once do not make up a step: {whose} {examples} examples; give {_MICRO} "
            f"{_or(_neighbours(mine, micro_batch))}, or leave it out",
            flag=_MICRO,
        )
    return Division(micro_batch, mine // micro_batch)


def largest_division(examples: int, at_most: int) -> Division:
    """Of the ``examples`` of one process: as many at once as ``at_most`` allows."""
    micro = max(n for n in range(1, min(at_most, examples) + 1) if examples % n == 0)
    return Division(micro, examples // micro)


def division_of(options: Resolved) -> Division | None:
    """How a step of this run is divided; None without ``--global_batch_size``."""
    if options.run.global_batch_size is None:
        return None
    return divide(options.run.global_batch_size, processes(), options.training.get("per_device_train_batch_size"))


def examples_a_step(options: Mapping[str, Any], processes: int) -> int | None:
    """Of all ``processes``, by option names (:func:`lmtrain.config.save.as_dict`); None where tokens decide."""
    if options.get("batch_tokens"):
        return None
    if whole := options.get("global_batch_size"):
        return int(whole)
    each = int(options.get("per_device_train_batch_size") or DEFAULT_MICRO_BATCH)
    return each * int(options.get("gradient_accumulation_steps") or 1) * processes


def check_global_batch(options: Resolved, problems: Problems) -> None:
    run, given = options.run, options.training
    if run.global_batch_size is None:
        return
    others = [name for name in ("gradient_accumulation_steps",) if name in given]
    others += ["batch_tokens"] if run.batch_tokens is not None else []
    for name in others:
        problems.add(f"sizes the step, and so does --{name}; give one of them", flag=_FLAG)
    if run.auto_batch and "per_device_train_batch_size" in given:
        problems.add(
            f"finds how many of the {run.global_batch_size} examples go at once, and {_MICRO} says it; give one of "
            "them",
            flag="--auto_batch",
        )
    if given.get("dataloader_drop_last"):
        problems.add(
            f"drops what does not fill a batch of every process, so a step of {_FLAG} would depend on their number; "
            "leave it out: the last examples make a shorter step",
            flag="--dataloader_drop_last",
        )
    with problems.collect():
        division_of(options)


def _neighbours(examples: int, near: int) -> list[int]:
    """The divisors of ``examples`` next to ``near``, which is none."""
    divisors = [n for n in range(1, examples + 1) if examples % n == 0]
    below, above = [n for n in divisors if n < near][-1:], [n for n in divisors if n > near][:1]
    return below + above


def _or(numbers: Any) -> str:
    return " or ".join(str(n) for n in numbers)
