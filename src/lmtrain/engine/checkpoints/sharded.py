"""A checkpoint that several processes write, each its part, and that is there only when all of them are done.

The parts go through ``torch.distributed.checkpoint``, which plans who writes and who reads which piece of which tensor,
for any number of processes on either side. Its storage is the safetensors one: a header of JSON, then numbers. DCP's
own format keeps what it knows in ``.metadata``, a pickle, and reading a pickle can run code; here nothing is pickled.

::

    checkpoint-100/
      shards/weights/shard-00001-….safetensors      one file a process
      shards/optimizer/shard-00001-….safetensors
      optimizer.json, scheduler.pt, trainer_state.json, run_state.json, config.json, tokenizer …
      manifest.json                                 all of them, by size and hash
"""

from __future__ import annotations

import errno
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from lmtrain.core.errors import Interrupted, UserError, one_line
from lmtrain.core.files import atomic_folder
from lmtrain.engine.checkpoints.manifest import describe
from lmtrain.engine.checkpoints.write import Contents, write_contents
from lmtrain.engine.distributed.processes import noticing_lost_ones

_T = TypeVar("_T")
_INTERRUPTED = -1  # among the numbers of errors
_SEEN_WITHIN, _LOOK_EVERY = 20.0, 0.5  # seconds


class _Writer(HuggingFaceStorageWriter):
    """DCP's, each process a file of its own; it tells which."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), save_distributed=True)
        self.written: set[str] = set()

    def write_data(self, *args: Any, **kwargs: Any) -> Any:
        done = super().write_data(*args, **kwargs)
        self.written = {result.storage_data.relative_path for result in done.value()}
        return done


def write_sharded(path: Path, contents: Contents, parts: Mapping[str, Mapping[str, Tensor]], group: Any = None) -> int:
    """Make the folder ``path``, as :func:`~lmtrain.engine.checkpoints.write.write_checkpoint` does, by all processes
    of ``group``; returns its size in bytes.

    ``parts`` are tensors by folder and name, in the same order on every process, ``DTensor``s among them: each writes,
    flushes and hashes its pieces. ``contents`` are written by the first process, which then writes the manifest and
    renames, once. What fails anywhere is raised everywhere (:func:`together`). Then nothing of it stays, and earlier
    checkpoints are as they were.
    """
    first = dist.get_rank(group) == 0
    with ExitStack() as stack:  # left by an error, it takes the scratch folder along
        scratch = Path(together(lambda: str(stack.enter_context(atomic_folder(path))) if first else "", group)[0])
        written = []
        for name, tensors in parts.items():
            writer = _Writer(scratch / name)
            _save(tensors, writer, group)
            written += [f"{name}/{file}" for file in sorted(writer.written)]
        described: dict[str, dict[str, Any]] = {}
        for one in together(lambda: {name: describe(scratch / name) for name in written}, group):
            described |= one

        def commit() -> int:
            if not first:
                return 0
            _require_seen(scratch, described)
            size = write_contents(scratch, contents, described, processes=dist.get_world_size(group))
            stack.close()  # the rename
            return size

        return together(commit, group)[0]


def names_in(folder: Path) -> set[str]:
    """The names of the tensors in a folder of safetensors files, whoever wrote them."""
    return set(HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata)


def read_part(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill ``tensors``, whole ones or ``DTensor``s, from the safetensors files in ``folder``, in place.

    Every process reads what it needs, and has to call it where there is a process group. Raises :class:`UserError` for
    tensors of other names or shapes.
    """
    reader = HuggingFaceStorageReader(str(folder))
    try:
        with noticing_lost_ones(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process reads alone, as is meant
            dcp.load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
    except (CheckpointException, ValueError, RuntimeError) as error:
        if not isinstance(error, CheckpointException):
            reason: BaseException = error
        elif any(isinstance(reason, OSError) for reason, _ in error.failures.values()):
            _raise(error)
        else:
            reason = next(iter(error.failures.values()))[0]
        raise UserError(
            f"{folder} holds another model's tensors: {one_line(reason)[:200]}",
            flag="--resume_from_checkpoint",
        ) from None


def together(work: Callable[[], _T], group: Any = None) -> list[_T]:
    """What ``work`` returned on each process, by rank, once all have done it; an error on one is raised on all.

    That is :class:`OSError` or :class:`Interrupted` where it was one. Of others the process that failed raises its own,
    the rest :class:`RuntimeError`.
    """
    mine: _T | None = None
    failure: BaseException | None = None
    try:
        mine = work()
    except (Exception, Interrupted) as error:
        failure = error
    told: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(told, (mine, None if failure is None else _in_words(failure)), group=group)
    if failure is not None and not isinstance(failure, OSError):
        raise failure
    for rank, (_, wrong) in enumerate(told):
        if wrong is not None:
            raise _of_process(rank, *wrong) from failure
    return [one for one, _ in told]


def _in_words(error: BaseException) -> tuple[int | None, str]:
    """The number of an error of the file system, -1 for an interruption, None for others, and what it says."""
    if isinstance(error, Interrupted):
        return _INTERRUPTED, str(error)
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return error.errno or errno.EIO, f"{error.strerror or error}{where}"
    return None, f"{type(error).__name__}: {error}"


def _of_process(rank: int, number: int | None, text: str) -> BaseException:
    """What :func:`_in_words` said of that process's error, as one."""
    text = f"process {rank}: {text}"
    if number == _INTERRUPTED:
        return Interrupted(text)
    return RuntimeError(text) if number is None else OSError(number, text)


def _save(tensors: Mapping[str, Tensor], writer: _Writer, group: Any) -> None:
    try:
        dcp.save(dict(tensors), storage_writer=writer, process_group=group)
    except CheckpointException as error:  # raised on all, with what each says; it is no Exception
        _raise(error)


def _raise(error: CheckpointException) -> NoReturn:
    rank, (reason, _) = next(iter(error.failures.items()))
    raise _of_process(rank, *_in_words(reason)) from reason


def _require_seen(scratch: Path, described: Mapping[str, Mapping[str, Any]]) -> None:
    """The first process has to see what the others wrote; a disk of the network may show it a little later."""
    until = time.monotonic() + _SEEN_WITHIN
    for name, about in described.items():
        path = scratch / name
        while not path.is_file() or path.stat().st_size != about["size"]:
            if time.monotonic() < until:
                time.sleep(_LOOK_EVERY)
                continue
            raise UserError(
                f"the first process does not see {name}, which another one wrote to {scratch.parent}: a sharded "
                "checkpoint needs a folder that all machines of the run share",
                flag="--output_dir",
            )
