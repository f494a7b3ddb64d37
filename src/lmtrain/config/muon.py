"""``--optim muon`` as options: one learning rate, and what follows from it.

The figures are measured; the measurements and their commands stand in docs/optimizers.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lmtrain.core.errors import UserError

NAME = "muon"  # as --optim takes it; transformers has no optimizer of that name

# Fields of TrainingArguments that the user leaves out: the library's defaults for them were found for AdamW alone.
DEFAULTS: dict[str, Any] = {"learning_rate": 0.02, "adam_beta2": 0.95}

_BELOW = {"adam_ratio": math.inf, "momentum": 1.0}


@dataclass(frozen=True)
class MuonArgs:
    """What ``--optim_args`` may say beside ``--optim muon``.

    ``adam_ratio``: the learning rate of AdamW, which has the embeddings, the head, norms and biases, is this times
    ``--learning_rate``, all along the schedule. ``momentum`` is Muon's.
    """

    adam_ratio: float = 0.25
    momentum: float = 0.95

    @classmethod
    def parse(cls, text: str | None) -> MuonArgs:
        """From ``key=value,key=value``; raises :class:`UserError` for anything else."""
        names = [item.name for item in fields(cls)]
        values: dict[str, float] = {}
        for pair in filter(None, (part.strip() for part in (text or "").split(","))):
            name, _, word = (part.strip() for part in pair.partition("="))
            if name not in names:
                raise UserError(f"muon knows no {name!r}, only {' and '.join(names)}", flag="--optim_args")
            try:
                values[name] = float(word)
            except ValueError:
                raise UserError(f"{name}={word}: that is not a number", flag="--optim_args") from None
            if not 0 <= values[name] < _BELOW[name]:
                bound = "" if math.isinf(_BELOW[name]) else f" and below {_BELOW[name]:g}"
                raise UserError(f"{name}={word}: it must be at least 0{bound}", flag="--optim_args")
        return cls(**values)


def is_muon(training: Mapping[str, Any]) -> bool:
    """Whether these fields of ``TrainingArguments`` ask for Muon."""
    return training.get("optim") == NAME
