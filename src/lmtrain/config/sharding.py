"""Who divides the model over GPUs: an option of the command, or the configuration that ``accelerate launch`` was given.

Accelerate's launcher tells what it starts in environment variables alone (``ACCELERATE_USE_FSDP``,
``ACCELERATE_USE_DEEPSPEED``), and the Trainer obeys them as it does the options.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lmtrain.config.values import YES

Kind = Literal["fsdp", "deepspeed"]
KINDS: tuple[Kind, ...] = ("fsdp", "deepspeed")
_NAMES: dict[Kind, str] = {"fsdp": "FSDP", "deepspeed": "DeepSpeed"}


@dataclass(frozen=True)
class Sharding:
    """That a model is divided, and whether the launcher asked for it (``by_launcher``) or an option did."""

    kind: Kind
    by_launcher: bool = False

    @property
    def who(self) -> str:
        """What divides it, to go before a verb: ``--fsdp``, ``the FSDP of accelerate launch``."""
        return f"the {_NAMES[self.kind]} of accelerate launch" if self.by_launcher else f"--{self.kind}"

    @property
    def without(self) -> str:
        """What to do to have it gone, to end a sentence."""
        if self.by_launcher:
            return "take a configuration without it, such as examples/distributed/ddp.yaml"
        return f"leave out --{self.kind}"


def sharding_of(training: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Sharding | None:
    """What divides the model of a run with these arguments of the Trainer; None where each process holds all of it.

    >>> sharding_of({}, {"ACCELERATE_USE_FSDP": "true"})
    Sharding(kind='fsdp', by_launcher=True)
    >>> sharding_of({"deepspeed": "zero2.json"}, {}).who
    '--deepspeed'
    """
    for kind in KINDS:
        if training.get(kind):
            return Sharding(kind)
    return launcher_sharding(environment)


def launcher_sharding(environment: Mapping[str, str] | None = None) -> Sharding | None:
    """As :func:`sharding_of`, of what the launcher alone asks for."""
    said = os.environ if environment is None else environment
    for kind in KINDS:
        if said.get(f"ACCELERATE_USE_{kind.upper()}", "").lower() in YES:
            return Sharding(kind, by_launcher=True)
    return None
