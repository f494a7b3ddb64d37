"""How a run saves, and what it does when it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lmtrain.core.errors import ExitCode, UserError


@dataclass(frozen=True)
class Saving:
    """Beside ``TrainingArguments``' own settings of saving.

    Args:
        max_failed_saves: a run stops when so many saves in a row have failed.
        keep_optimizer_states: newest checkpoints that can be gone on from; older ones keep weights only. None: all.
        background: write while training goes on. ``auto``: where there is memory for a copy, and nobody is told of a
            checkpoint (a callback's ``on_save``, the hub) before it is there. Sharded models are written in place.
        accept_changes: go on from a checkpoint although data, batch, steps or schedule differ from when it was made.
        report: called with what a save cost: step, bytes, seconds.
    """

    max_failed_saves: int = 3
    keep_optimizer_states: int | None = None
    background: Literal["auto", "on", "off"] = "auto"
    accept_changes: bool = False
    report: Callable[[dict[str, Any]], None] | None = None


class NoSaveSucceededError(UserError):
    """Nothing that a run computes would survive it, so it stops: exit code 76."""

    exit_code = ExitCode.NO_SAVE_SUCCEEDED
