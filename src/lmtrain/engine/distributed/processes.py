"""Several processes end together, or the last one is left waiting and the first one aborts."""

from __future__ import annotations

import gc
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch

from lmtrain.core.console import is_first_process
from lmtrain.core.errors import Interrupted, Lost, OwnResultWrong, first_line
from lmtrain.core.launching import processes, rank
from lmtrain.engine.distributed.meeting import leave_the_meeting

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
# What NCCL says when a process is gone or no longer answers. It has other errors, of the device or of how it is used.
_NCCL_LOST = re.compile(
    r"ncclRemoteError|remote process exited|NCCL communicator was aborted|[Tt]imed out|[Tt]imeout|Broken pipe"
    r"|[Cc]onnection (was |likely )*(closed|reset|refused)"
)
_NCCL_FAULT = re.compile("ncclUnhandledCudaError|ncclInvalid(Argument|Usage)|ncclInternalError")
_FAREWELL = 60.0  # seconds; who comes later finds nobody, and says so
_AT_WORK: Final = "at work"
_SAYS_SO_EVERY = 60.0  # seconds
_SILENCE = timedelta(minutes=30)  # after which who works for the others is gone


def to_the_end(work: Callable[[], _T]) -> _T:
    """What ``work`` returns, once all processes have left their group; or the interruption that ended it for all."""
    interrupted = None
    try:
        with noticing_lost_ones():
            result = work()
    except Interrupted as error:
        interrupted = error.with_traceback(None)  # which would keep the trainer alive
    if interrupted is None or interrupted.together:
        leave_together()
    if interrupted is not None:
        raise interrupted
    return result


@contextmanager
def noticing_lost_ones() -> Iterator[None]:
    """Raise :class:`Lost` where an exchange fails because another process is gone or does not answer.

    Nothing of the run is wrong then, and its checkpoints are whole: started again it goes on.
    """
    try:
        yield
    except RuntimeError as error:
        if processes() == 1 or not _is_of_a_lost_one(error):
            raise
        lost = Lost(f"{Lost.SAID}: {_why(error)}")
        if not is_first_process():  # the first one says it when it ends; it may be the one that is gone
            _log.error("process %d ends: %s", rank(), lost)
        raise lost from None


def _is_of_a_lost_one(error: RuntimeError) -> bool:
    """By who says it: a data loader's, a kernel's or a file's timeout is a fault here, which would come again."""
    distributed = torch.distributed
    if not distributed.is_available():
        return False
    if isinstance(error, distributed.DistNetworkError | distributed.DistStoreError):  # of the store that all meet at
        return True
    if isinstance(error, distributed.DistBackendError):
        return bool(_NCCL_LOST.search(str(error))) and not _NCCL_FAULT.search(str(error))
    return "gloo/transport" in str(error)  # its errors have no class of their own, but say where in gloo they are from


def _why(error: Exception) -> str:
    """The words of the library, without where in its source they stand."""
    text = re.sub(r"^\[\S+\]\s*", "", first_line(error))
    return text.split(". ")[0].rstrip(".")


def leave_together() -> None:
    """Wait for the other processes, then leave their group. Call it when no trainer is alive; alone it does nothing.

    A process that exits while gloo's threads still run is aborted by the C++ runtime ("terminate called without an
    active exception"), and its launcher then reports a finished run as failed.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # a model wrapped in DDP is part of cycles and has to go before its group
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"barrier\(\): using the device")  # of NCCL: it is this process's own
            torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    else:  # every training was finished before: no group was made, and the first process may serve the others' store
        leave_the_meeting(_FAREWELL)


def by_the_first(work: Callable[[], None]) -> None:
    """Let the first process ``work`` while the others wait for however long that takes, as long as they hear from it;
    what it raises ends all.

    Those that have not met do not wait."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        if is_first_process():
            work()
        return
    group = distributed.new_group(backend="gloo", timeout=_SILENCE)
    failure: BaseException | None = None
    told: list[Any] = [_AT_WORK]
    if distributed.get_rank() == 0:
        try:
            with _saying_so(group):
                work()
            told = [None]
        except (Exception, Interrupted) as error:
            failure = error
            told = [(isinstance(error, Interrupted), str(error) or type(error).__name__)]
        distributed.broadcast_object_list(told, src=0, group=group)
    while told[0] == _AT_WORK:
        distributed.broadcast_object_list(told, src=0, group=group)
    distributed.destroy_process_group(group)
    if failure is not None:
        raise failure
    if told[0] is not None:
        interrupted, text = told[0]
        raise Interrupted(text) if interrupted else OwnResultWrong(text)


@contextmanager
def _saying_so(group: Any) -> Iterator[None]:
    """Meanwhile the others of ``group`` are told that this process is at work: a machine that is gone tells nothing."""
    over = threading.Event()

    def say() -> None:
        with suppress(RuntimeError):  # another one is gone: who tells the end notices it, too
            while not over.wait(_SAYS_SO_EVERY):
                torch.distributed.broadcast_object_list([_AT_WORK], src=0, group=group)

    thread = threading.Thread(target=say, name="at-work", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
