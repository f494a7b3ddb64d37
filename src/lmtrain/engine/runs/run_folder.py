"""A run is a folder: what it holds and who may write to it.

=====================  =====================================================================
``run.json``           the command, its resolved options, versions and machine
``decisions.json``     what was chosen by measuring or by default, with the reason
``data.json``          sources, hashes, ledgers of the data
``status.json``        preparing, training, evaluating, finished, interrupted or failed; step
``metrics.jsonl``      one event a line
``run.lock``           held while a process works on the run
``logs/rank-N.log``    what process N said, was warned of and died of; see :mod:`lmtrain.core.ranklog`
``export.json``        which step the model in the folder is of, why that one, its score, how it compared, its files
``checkpoint-N``       what a run resumes from
``left-checkpoint-N``  one of a training that was left, when the run went on from an earlier one
(the rest)             the model and tokenizer as ``from_pretrained`` reads them, and results
=====================  =====================================================================
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from lmtrain.core import ranklog
from lmtrain.core.console import say
from lmtrain.core.errors import Interrupted, Lost, UserError
from lmtrain.core.files import clear_scratch, read_record, write_json
from lmtrain.core.launching import launcher, processes
from lmtrain.core.runlog import RunLog
from lmtrain.core.secrets import without_keys
from lmtrain.core.version import __version__
from lmtrain.engine.runs.versions import machine, process, versions

RUN, DECISIONS, DATA, STATUS, METRICS, LOCK, EXPORT = (
    "run.json", "decisions.json", "data.json", "status.json", "metrics.jsonl", "run.lock", "export.json",
)  # fmt: skip
MODEL_FILES = re.compile(
    r"(model.*\.safetensors|pytorch_model.*\.bin|adapter_model\.\w+|model\.safetensors\.index\.json|(adapter_)?config\.json)$"
)
CHECKPOINT = re.compile(r"checkpoint-(\d+)$")
_LEFT = re.compile(r"left\d*-checkpoint-\d+$")  # set aside when the run went on from an earlier one
_ENDS = ("finished", "interrupted", "failed")
_PATIENCE = 1.0  # seconds for what another process wrote of its end to be seen here


class RunFolder:
    """The folder of a run while one process works on it: hold the lock, write its records.

    >>> with RunFolder(path) as run:                    # doctest: +SKIP
    ...     run.describe("clm", argv, options)
    ...     run.status("training", step=10)
    """

    def __init__(
        self,
        path: Path,
        *,
        overwrite: bool = False,
        keep: Path | None = None,
        set_aside: Sequence[Path] = (),
        still: Callable[[], None] | None = None,
        writes: bool = True,
    ) -> None:
        """``overwrite`` removes an earlier run but for the checkpoint ``keep``; the checkpoints ``set_aside`` get other
        names. ``still`` is called when the lock is held and before that, and raises where the folder is no longer what
        it was when that was decided. ``writes`` is False on every process but the first: the others neither lock nor
        write, but for their logs."""
        self.path = path
        self.writes = writes
        self._overwrite = overwrite
        self._keep = keep
        self._set_aside = tuple(set_aside)
        self._still = still
        self._lock = FileLock(path / LOCK)
        self.log: RunLog | None = None
        self._rank_log: ranklog.RankLog | None = None
        self._open = ExitStack()

    def __enter__(self) -> RunFolder:
        if self.writes:
            self._hold()
        self._rank_log = self._open.enter_context(ranklog.listening())
        self._rank_log.open(self.path, process(), anew=self._overwrite)
        return self

    def _hold(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another process is working on the run in {self.path}; wait for it or choose another folder",
                flag="--output_dir",
            ) from None
        try:
            if self._still is not None:
                self._still()
            for name in (RUN, DECISIONS, DATA, STATUS, EXPORT, "*_results.json"):
                clear_scratch(self.path, name)
            if self._overwrite:
                self._clear()
            for checkpoint in self._set_aside:
                checkpoint.rename(free_name(checkpoint))
            self.log = RunLog(self.path / METRICS)
        except BaseException:
            self._lock.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and self._rank_log is not None:
                self._rank_log.ended(error)  # now, for the first process to see why this one is gone
            if self.writes:
                self._let_go(error)
            elif isinstance(error, Interrupted) and not error.together:
                self._speak_for_the_first(str(error))
        finally:
            self._open.__exit__(kind, error, trace)

    def _let_go(self, error: BaseException | None) -> None:
        if error is not None and (self.path / STATUS).is_file():
            interrupted = isinstance(error, KeyboardInterrupt | Interrupted)
            reason = "; ".join([str(error) or type(error).__name__, *self._others_failures(error)])
            with suppress(OSError):
                self.status("interrupted" if interrupted else "failed", reason=without_keys(reason))
        if self.log is not None:
            self.log.close()
        self._lock.release()

    def _speak_for_the_first(self, reason: str) -> None:
        """Write down how the run ended where the first process, which would, was killed: its lock is free then."""
        with suppress(OSError, ValueError, Timeout), self._lock.acquire(timeout=_PATIENCE):
            before = read_record(self.path / STATUS)
            if before and before.get("state") not in _ENDS:
                now = {"state": "interrupted", "updated": round(time.time(), 3), "reason": reason}
                write_json(self.path / STATUS, {**before, **now})

    def _others_failures(self, error: BaseException) -> list[str]:
        """What other processes died of, where that may be why this one ends; said too."""
        if processes() == 1 or self._rank_log is None or getattr(error, "together", False):
            return []
        since, lost = self._rank_log.opened, isinstance(error, Lost)
        found = ranklog.failures(self.path, since, _PATIENCE, interrupted=lost)
        for line in found:
            say("attention", line)
        return found

    def _clear(self) -> None:
        """Remove an earlier run: its records, checkpoints and export, and nothing that we did not write."""
        (self.path / RUN).unlink(missing_ok=True)  # first: what is left when this is cut short is nobody's run
        kept = None if self._keep is None else self._keep.resolve()
        libraries = {"trainer_state.json", "training_args.bin", "generation_config.json"}
        names = {DECISIONS, DATA, STATUS, METRICS, EXPORT} | libraries
        ranklog.remove_others(self.path)
        for entry in self.path.iterdir():
            is_checkpoint = CHECKPOINT.match(entry.name) or _LEFT.match(entry.name)
            if is_checkpoint and kept is not None and entry.resolve() in (kept, *kept.parents):
                continue
            if is_checkpoint and entry.is_symlink():
                entry.unlink()
            elif is_checkpoint and entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name in names or MODEL_FILES.match(entry.name) or entry.name.endswith("_results.json"):
                entry.unlink()

    def describe(self, command: str, argv: list[str], options: dict[str, Any]) -> None:
        """Write ``run.json``: all that is needed to repeat the run."""
        self._record(
            RUN,
            {
                "lmtrain": __version__,
                "command": command,
                "argv": argv,
                "launcher": launcher(),
                "options": options,
                "versions": versions(),
                "machine": machine(),
                "working_folder": str(Path.cwd()),  # relative paths in argv begin there
                "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            },
        )

    def decisions(self, decisions: dict[str, Any]) -> None:
        self._record(DECISIONS, decisions)

    def data(self, manifest: dict[str, Any]) -> None:
        self._record(DATA, manifest)

    def event(self, kind: str, **values: Any) -> None:
        """Into ``metrics.jsonl``, while this process works on the run; before that nothing."""
        if self.log is not None:
            self.log.event(kind, **values)

    def exported(self, what: dict[str, Any]) -> None:
        """``what`` is :attr:`LMTrainer.exported`, how the model compared, and its files."""
        self._record(EXPORT, what)

    def _record(self, name: str, value: Any) -> None:
        if self.writes:
            write_json(self.path / name, value)

    def status(self, state: str, **values: Any) -> None:
        """Write ``status.json``; earlier values (the step reached) stay unless given anew."""
        before = read_record(self.path / STATUS)
        before.pop("reason", None)
        now = {"state": state, "pid": os.getpid(), "updated": round(time.time(), 3)}
        self._record(STATUS, {**before, **now, **values})
        if self.log is not None:
            self.log.event("status", state=state, **values)


def free_name(checkpoint: Path) -> Path:
    """What a checkpoint of a training that is left behind is called: a name that nothing takes for a checkpoint's."""
    names = (checkpoint.with_name(f"left{n if n > 1 else ''}-{checkpoint.name}") for n in count(1))
    return next(name for name in names if not name.exists() and not name.is_symlink())
