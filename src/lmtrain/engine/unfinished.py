"""A run that ends outside of its training: while it prepares, or when its model is written and not yet evaluated."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from lmtrain.config.values import YES
from lmtrain.core.console import is_first_process
from lmtrain.core.errors import Interrupted
from lmtrain.core.files import read_record, write_json
from lmtrain.engine.runs.found import Found
from lmtrain.engine.runs.resume import goes_on_with_it
from lmtrain.engine.runs.run_folder import EXPORT, LOCK, RUN, STATUS
from lmtrain.engine.trainer import LMTrainer

EXPORTED: Final = "exported"  # in status.json: whether what the run has trained lies in its folder


@contextmanager
def noting_interruptions(folder: Path, found: Found) -> Iterator[None]:
    """Around what comes before a run holds its folder: let ``status.json`` say where it was ended there.

    Under torchrun, which makes 1 of every exit code, nothing else would. An earlier run that this one was to take the
    place of keeps its status.
    """
    try:
        yield
    except Interrupted as error:
        is_its = goes_on_with_it(found) and not found.ended  # one that had ended is finished still
        if is_first_process() and (is_its or not (folder / RUN).is_file()):
            _note(folder, f"{error}; it was preparing")
        raise


def _note(folder: Path, reason: str) -> None:
    with suppress(OSError, ValueError, Timeout):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK).acquire(timeout=0):
            now = {"state": "interrupted", "pid": os.getpid(), "updated": round(time.time(), 3), "reason": reason}
            write_json(folder / STATUS, {"step": 0, **read_record(folder / STATUS), **now})


def lacks_only_scores(folder: Path, found: Found, options: dict[str, Any]) -> bool:
    """Whether the run in ``folder`` ended when its model was written, so that evaluating is all that is left of it.

    Not where the ``options`` of another command than the run's ask for another training: from a checkpoint that they
    name, for longer, or with changes.
    """
    asked = options.get("resume_from_checkpoint")
    elsewhere = asked is not None and asked.lower() not in YES
    if (elsewhere or options.get("extend") or options.get("accept_changes")) and not found.is_its_own:
        return False
    if not goes_on_with_it(found):
        return False
    return read_record(folder / STATUS).get(EXPORTED) is True and (folder / EXPORT).is_file()


def is_saved(trainer: LMTrainer, found: Found) -> bool:
    """Whether there is a checkpoint of what ``trainer`` has trained, from what was ``found`` on. Every process has to
    call it: those that do not write may not know."""
    step = trainer.state.global_step
    from_there = found.checkpoint is not None and found.step == step
    mine = not trainer.args.save_only_model and (trainer.saved_step == step or from_there)
    return bool(trainer.asked_by_any(mine))


def why_stopped(trainer: LMTrainer) -> str:
    return (trainer.stop.reason if trainer.stop else None) or "another process was asked to stop"


def require_unasked(trainer: LMTrainer, split: str) -> None:
    """Raise :class:`Interrupted` on all processes where one was asked to stop before it scores ``split``: the model is
    written then. Every process has to call it."""
    if trainer.is_anyone_asked():
        raise Interrupted(f"{why_stopped(trainer)}; trained and written, without the {split} scores", together=True)
