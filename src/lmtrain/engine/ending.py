"""A training that ends before its time, or that cannot write what it came to: what is there of it, and what comes next.

What is said is looked up: the last save may have failed, or have kept no more than weights.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lmtrain.core.allocator import is_out_of_memory
from lmtrain.core.console import is_first_process
from lmtrain.core.errors import BeginsAnew, Interrupted, UserError, first_line
from lmtrain.core.files import NO_RIGHT, NO_ROOM, as_os_errors, read_record
from lmtrain.engine.checkpoints.policy import NoSaveSucceededError
from lmtrain.engine.checkpoints.read import Newest, newest
from lmtrain.engine.runs.run_folder import STATUS
from lmtrain.engine.trainer import LMTrainer
from lmtrain.engine.unfinished import EXPORTED

_GONE: Final = frozenset({errno.EIO, errno.ESTALE})  # a disk that breaks, a network file system that went away


def interrupted(trainer: LMTrainer, folder: Path, reason: str) -> Interrupted:
    """What to raise on every process for a training that all of them stopped for ``reason``; the first one's says what
    is kept of it in ``folder``. Call it when the last save is over."""
    step = trainer.state.global_step
    saved = trainer.saved_step == step
    if not is_first_process():  # it does not write, and may not know
        return Interrupted(f"{reason}; stopped after step {step:,}", together=True)
    if saved and not trainer.args.save_only_model:
        return Interrupted(f"{reason}; saved at step {step}", together=True)
    found = _newest(folder)
    if found.checkpoint is not None and found.step == step:  # it went on from there, and came no further
        return Interrupted(f"{reason}; saved at step {step}", together=True)
    what = f"step {step:,} is not saved"
    if saved:
        what = f"of step {step:,} only the weights are saved (--save_only_model)"
    if found.checkpoint is not None:
        return Interrupted(f"{reason}; {what}; the last checkpoint is {found.checkpoint.name}", together=True)
    return BeginsAnew(f"{reason}; {what}, and there is no earlier checkpoint to go on from", together=True)


@contextmanager
def fitting(trainer: LMTrainer) -> Iterator[None]:
    """Around the steps of ``trainer``. Raises :class:`UserError` where one finds too little memory: what was tried
    before the first cannot rule that out."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"there was too little memory after step {trainer.state.global_step:,} ({first_line(error)}); with "
            "--auto_batch fewer examples at once make the same steps (an evaluation has --per_device_eval_batch_size), "
            "and the run goes on from its last checkpoint",
            flag="--per_device_train_batch_size",
        ) from error


@contextmanager
def writing_down(trainer: LMTrainer, folder: Path) -> Iterator[None]:
    """Around what a training leaves in ``folder`` at its end.

    Raises :class:`NoSaveSucceededError` where the file system refuses it: there is nothing wrong with the training,
    whose last checkpoint, if it has one, is as it was.
    """
    try:
        with as_os_errors():
            yield
    except OSError as error:
        if not _refuses(error, folder):
            raise
        step, found = trainer.state.global_step, _newest(folder)
        why = f"{error.strerror or error}: {error.filename or folder}"
        remedies = dict.fromkeys(NO_ROOM, "make room") | dict.fromkeys(_GONE, "see to its disk")
        first = remedies.get(error.errno or 0, "give back the right to write")
        if read_record(folder / STATUS).get(EXPORTED) is True:
            then = f"The model lies complete in {folder}: {first}, and the same command adds the scores"
        elif found.checkpoint is None:
            then = f"No checkpoint is there to go on from: {first} before the same command begins anew"
        elif found.step == step:
            then = f"{found.checkpoint.name} holds it all: {first}, and the same command writes what is missing"
        else:
            then = f"The last checkpoint is {found.checkpoint.name}: {first}, and the same command goes on from there"
        raise NoSaveSucceededError(
            f"training has ended with step {step:,}, and what it came to cannot be written ({why}). {then}",
            flag="--output_dir",
        ) from error


def _refuses(error: OSError, folder: Path) -> bool:
    """Whether it is about writing to ``folder``, and not about a file of the data or a fault of ours."""
    if error.filename and not Path(str(error.filename)).absolute().is_relative_to(folder.absolute()):
        return error.errno in NO_ROOM
    return error.errno in NO_ROOM | NO_RIGHT | _GONE or not folder.is_dir()


def _newest(folder: Path) -> Newest:
    try:
        return newest(folder)
    except (OSError, ValueError):
        return Newest(None)
