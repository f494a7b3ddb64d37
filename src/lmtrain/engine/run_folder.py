"""A run is a folder: what it holds, who may write to it, and what the same command finds there.

=====================  =====================================================================
``run.json``           the command, its resolved options, versions and machine
``decisions.json``     what was chosen by measuring or by default, with the reason
``data.json``          sources, hashes, ledgers of the data
``status.json``        preparing, training, evaluating, finished, interrupted or failed; step
``metrics.jsonl``      one event a line
``run.lock``           held while a process works on the run
``export.json``        which step the model in the folder is of, why that one, its score, how it compared, its files
``checkpoint-N``       what a run resumes from
(the rest)             the model and tokenizer as ``from_pretrained`` reads them, and results
=====================  =====================================================================
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from filelock import FileLock, Timeout

from lmtrain import __version__
from lmtrain.config.save import defaults
from lmtrain.config.values import user_path
from lmtrain.core.console import is_first_process
from lmtrain.core.errors import Interrupted, UserError
from lmtrain.core.files import read_json, write_json
from lmtrain.core.runlog import RunLog
from lmtrain.engine.checkpoints.read import newest

RUN, DECISIONS, DATA, STATUS, METRICS, LOCK, EXPORT = (
    "run.json", "decisions.json", "data.json", "status.json", "metrics.jsonl", "run.lock", "export.json",
)  # fmt: skip
_MODEL_FILES = re.compile(
    r"(model.*\.safetensors|pytorch_model.*\.bin|adapter_model\.\w+|model\.safetensors\.index\.json|(adapter_)?config\.json)$"
)
_CHECKPOINT = re.compile(r"checkpoint-(\d+)$")

# Options that may differ between the first start and the next without changing what is computed.
FREE_OPTIONS = frozenset(
    {
        "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "overwrite_cache", "data_cache_dir",
        "cache_dir",
        "token", "logging_steps", "logging_strategy", "logging_first_step", "log_level", "log_level_replica",
        "report_to", "run_name", "disable_tqdm", "preprocessing_num_workers", "dataloader_num_workers",
        "dataloader_pin_memory", "dataloader_prefetch_factor", "dataloader_persistent_workers",
        "save_steps", "save_strategy", "save_total_limit", "do_train", "do_eval", "config", "json", "local_rank",
        "per_device_eval_batch_size", "streaming", "ddp_timeout", "log_on_each_node", "save_on_each_node",
        "push_to_hub", "hub_always_push", "hub_revision", "hub_token", "hub_model_id", "hub_strategy",
        "hub_private_repo", "packing", "auto_batch", "compile", "max_failed_saves", "keep_optimizer_states",
        "max_bad_steps",
        "background_save", "accept_changes", "max_minutes", "extend", "skip_check",
        "sample_prompts", "sample_prompts_file", "sample_max_new_tokens", "sample_temperature",
    }
)  # fmt: skip
_LENGTH = {"num_train_epochs": 3.0, "max_steps": 0}  # of a run; where none is given, what the library takes


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in an output folder before a command starts.

    ``state`` is ``"new"`` (nothing of ours), ``"unfinished"`` (resume, from ``checkpoint`` when there is one) or
    ``"finished"`` (the same command has ended there). ``passed_over`` says what is wrong with newer checkpoints.
    """

    state: Literal["new", "unfinished", "finished"]
    checkpoint: Path | None = None
    step: int = 0
    passed_over: tuple[str, ...] = ()


def differing(command: str, before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options whose change would change the result of a run of ``command``: what they were and what they are."""
    missing = defaults(command)  # an option that is younger than the run had its default
    keys = sorted((before.keys() | now.keys()) - FREE_OPTIONS)
    values = {key: (before.get(key, missing.get(key)), now.get(key, missing.get(key))) for key in keys}
    return {key: (was, is_now) for key, (was, is_now) in values.items() if was != is_now}


def _longer(changed: dict[str, tuple[Any, Any]]) -> set[str]:
    """Those of the changes that only make the run longer."""
    return {key for key, (was, now) in changed.items() if key in _LENGTH and now and now > (was or _LENGTH[key])}


def inspect(folder: Path, command: str, options: dict[str, Any], *, overwrite: bool) -> Found:
    """Look at ``folder`` without changing it, and refuse what would write over something else.

    Raises :class:`UserError` when it is a file, cannot be written, is held by another process, or holds another
    run or a model that this command did not make.
    """
    flag = "--output_dir"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give the name of a folder", flag=flag)
    _require_writable(folder, flag)
    _refuse_links(folder, flag)
    if is_first_process() and _is_locked(folder):  # the other ranks find the first one's lock
        raise UserError(
            f"another process is working on the run in {folder}; wait for it or choose another folder", flag=flag
        )
    if overwrite or not folder.is_dir():
        return Found("new")
    if not (folder / RUN).is_file():
        foreign = sorted(e.name for e in folder.iterdir() if _MODEL_FILES.match(e.name) or _CHECKPOINT.match(e.name))
        if foreign:
            raise UserError(
                f"{folder} holds a model that this command would write over ({', '.join(foreign[:3])}); "
                "choose another folder, or add --overwrite_output_dir",
                flag=flag,
            )
        return Found("new")
    return _inspect_run(folder, command, options, flag)


def _inspect_run(folder: Path, command: str, options: dict[str, Any], flag: str) -> Found:
    try:
        run = read_json(folder / RUN)
        status = read_json(folder / STATUS) if (folder / STATUS).is_file() else {}
        before, ran = run["options"], run["command"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}/{RUN} cannot be read ({error}); choose another folder, or add --overwrite_output_dir", flag=flag
        ) from error
    changed = differing(command, before, options) if ran == command else {}
    longer = _longer(changed)
    extends = longer if options.get("extend") else set()
    lines = [f"--{key} was {was!r} and is now {now!r}" for key, (was, now) in changed.items() if key not in extends]
    if ran != command:
        lines = [f"it was made by lmtrain {ran}"]
    if lines and not (ran == command and options.get("accept_changes")):
        shown = "\n".join(f"    {line}" for line in lines[:8])
        more = f"\n    and {len(lines) - 8} more" if len(lines) > 8 else ""
        ways = ", or --accept_changes to go on otherwise" if ran == command and "accept_changes" in options else ""
        if changed and longer == changed.keys():
            ways = ", or --extend to go on for longer"
        raise UserError(
            f"{folder} holds another run; choose another folder, or add --overwrite_output_dir to start over{ways}:\n"
            f"{shown}{more}",
            flag=flag,
        )
    if status.get("state") == "finished" and not changed:
        return Found("finished", step=int(status.get("step", 0)))
    if before.get("save_only_model"):  # without the optimizer's state a checkpoint is only a model
        return Found("unfinished")
    found = newest(folder)
    if found.checkpoint is None and found.reasons:
        raise UserError(
            f"{folder} holds an unfinished run, and none of its checkpoints can be gone on from{found.reasons}\n"
            "To start over add --overwrite_output_dir; to train on from weights, give that checkpoint as "
            "--model_name_or_path and another --output_dir",
            flag=flag,
        )
    return Found("unfinished", found.checkpoint, found.step, found.passed_over)


def _require_writable(folder: Path, flag: str) -> None:
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"{folder} cannot be made: {parent} is a file", flag=flag)
    probe = parent / f".lmtrain-write-test-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); choose a folder you may write to", flag=flag
        ) from error


def _refuse_links(folder: Path, flag: str) -> None:
    """What is written through a link would change a file elsewhere."""
    names = (METRICS, LOCK, "trainer_state.json")  # others are written anew and renamed
    for link in (folder / name for name in names):
        if link.is_symlink():
            raise UserError(
                f"{link} is a link to {link.readlink()}, which the run would write to; remove it, or choose another "
                "folder",
                flag=flag,
            )


def _is_locked(folder: Path) -> bool:
    if not (folder / LOCK).is_file():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def refuse_other_runs_results(folder: Path, model: str | None) -> None:
    """Raise :class:`UserError` when ``folder`` is the run of another model than the one evaluated.

    Its results would be written over with those of a model that does not lie there.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give the name of a folder", flag="--output_dir")
    if not (folder / RUN).is_file() or (model and user_path(model).resolve() == folder.resolve()):
        return
    raise UserError(
        f"{folder} holds the run of another model than {model or 'this one'}, whose results would be written over; "
        f"choose another folder, or evaluate the run's own model: --model_name_or_path {folder}",
        flag="--output_dir",
    )


class RunFolder:
    """The folder of a run while one process works on it: hold the lock, write its records.

    >>> with RunFolder(path) as run:                    # doctest: +SKIP
    ...     run.describe("clm", argv, options)
    ...     run.status("training", step=10)
    """

    def __init__(self, path: Path, *, overwrite: bool = False, writes: bool = True) -> None:
        """``writes`` is False on every process but the first: the others neither lock nor write."""
        self.path = path
        self.writes = writes
        self._overwrite = overwrite
        self._lock = FileLock(path / LOCK)
        self.log: RunLog | None = None

    def __enter__(self) -> RunFolder:
        if not self.writes:
            return self
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another process is working on the run in {self.path}; wait for it or choose another folder",
                flag="--output_dir",
            ) from None
        if self._overwrite:
            self._clear()
        self.log = RunLog(self.path / METRICS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.writes:
            return
        if kind is not None and (self.path / STATUS).is_file():
            interrupted = issubclass(kind, KeyboardInterrupt | Interrupted)
            with suppress(OSError):
                self.status("interrupted" if interrupted else "failed", reason=str(error) or kind.__name__)
        if self.log is not None:
            self.log.close()
        self._lock.release()

    def _clear(self) -> None:
        """Remove an earlier run: its records, checkpoints and export, and nothing that we did not write."""
        names = {
            RUN,
            DECISIONS,
            DATA,
            STATUS,
            METRICS,
            "trainer_state.json",
            "training_args.bin",
            "generation_config.json",
            EXPORT,
        }
        for entry in self.path.iterdir():
            if _CHECKPOINT.match(entry.name) and entry.is_symlink():
                entry.unlink()
            elif entry.is_dir() and _CHECKPOINT.match(entry.name):
                shutil.rmtree(entry)
            elif entry.name in names or _MODEL_FILES.match(entry.name) or entry.name.endswith("_results.json"):
                entry.unlink()

    def describe(self, command: str, argv: list[str], options: dict[str, Any]) -> None:
        """Write ``run.json``: all that is needed to repeat the run."""
        self._record(
            RUN,
            {
                "lmtrain": __version__,
                "command": command,
                "argv": argv,
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
        before: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            before = read_json(self.path / STATUS)
        before.pop("reason", None)
        now = {"state": state, "pid": os.getpid(), "updated": round(time.time(), 3)}
        self._record(STATUS, {**before, **now, **values})
        if self.log is not None:
            self.log.event("status", state=state, **values)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result can depend on."""
    found = {"python": platform.python_version()}
    for name in (
        "torch",
        "transformers",
        "accelerate",
        "tokenizers",
        "fastokens",
        "safetensors",
        "numpy",
        "peft",
        "datasets",
    ):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """The hardware, as far as results or speed can depend on it."""
    import torch

    found: dict[str, Any] = {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def _cpu_name() -> str:
    if sys.platform == "linux":
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
