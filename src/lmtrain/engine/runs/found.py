"""What a command finds in its output folder: nothing, a run to go on with, a finished one, or somebody else's."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from lmtrain.config.commands import TRAINING_COMMANDS
from lmtrain.config.global_batch import SIZES, examples_a_step
from lmtrain.config.save import defaults
from lmtrain.config.values import user_path
from lmtrain.core.console import is_first_process
from lmtrain.core.errors import UserError
from lmtrain.core.files import put_back, read_json, read_record
from lmtrain.core.launching import processes, rank
from lmtrain.engine.checkpoints.read import checkpoints, newest
from lmtrain.engine.runs.run_folder import CHECKPOINT, DECISIONS, LOCK, METRICS, MODEL_FILES, RUN, STATUS

# Options that may differ between the first start and the next without changing what is computed.
FREE_OPTIONS = frozenset(
    {
        "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "overwrite_cache", "data_cache_dir",
        "data_cache_gb", "cache_dir", "token", "logging_steps", "logging_strategy", "logging_first_step", "log_level",
        "log_level_replica", "report_to", "run_name", "disable_tqdm", "preprocessing_num_workers",
        "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor",
        "dataloader_persistent_workers", "dataloader_multiprocessing_context",
        "save_steps", "save_strategy", "save_total_limit", "do_train", "do_eval", "config", "json", "local_rank",
        "per_device_eval_batch_size", "streaming", "ddp_timeout", "log_on_each_node", "save_on_each_node",
        "push_to_hub", "hub_always_push", "hub_revision", "hub_token", "hub_model_id", "hub_strategy",
        "hub_private_repo", "packing", "auto_batch", "compile", "max_failed_saves", "keep_optimizer_states",
        "max_bad_steps", "background_save", "accept_changes", "max_minutes", "extend", "skip_check",
        "sample_prompts", "sample_prompts_file", "sample_max_new_tokens", "sample_temperature",
    }
)  # fmt: skip
_STEP = "a step"  # stands for the options that size it, where none of them but the number of processes changed
_LENGTH = {"num_train_epochs": 3.0, "max_steps": 0, "train_tokens": 0}  # of a run; without one what the library takes
_DYING = 30.0  # seconds for which the lock of a process that a launcher has given up may still be held


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in an output folder before a command starts, and what the command is going to do with it.

    ``state`` is ``"new"`` (nothing of ours), ``"unfinished"`` (resume, from ``checkpoint`` when there is one) or
    ``"finished"`` (the same command has ended there). ``passed_over`` says what is wrong with newer checkpoints,
    ``unusable`` why none of those that are there will do. ``ended``: it is finished, and was asked to go on.
    ``is_its_own``: the very command that began the run goes on with it. ``overwrites``: what lies there is removed
    first, but for ``checkpoint``. ``set_aside`` are checkpoints of a training that is left behind. ``lines`` are worth
    saying.
    """

    state: Literal["new", "unfinished", "finished"]
    checkpoint: Path | None = None
    step: int = 0
    passed_over: tuple[str, ...] = ()
    unusable: str = ""
    ended: bool = False
    is_its_own: bool = False
    overwrites: bool = False
    set_aside: tuple[Path, ...] = ()
    lines: tuple[str, ...] = ()
    seen: str = field(default="", compare=False)  # the folder's fingerprint then


def differing(command: str, before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options whose change would change the result of a run of ``command``: what they were and what they are."""
    missing = defaults(command)  # an option that is younger than the run had its default
    keys = sorted((before.keys() | now.keys()) - FREE_OPTIONS)
    values = {key: (before.get(key, missing.get(key)), now.get(key, missing.get(key))) for key in keys}
    return {key: (was, is_now) for key, (was, is_now) in values.items() if was != is_now}


def _but_for_the_division(
    folder: Path, changed: dict[str, tuple[Any, Any]], options: dict[str, Any], *, begun: bool
) -> dict[str, tuple[Any, Any]]:
    """``changed`` without the options that only divide a step otherwise, or with the step that they make another one.

    A step is the same however it is written down and shared: 2 processes × 8, ``--global_batch_size 16``.
    """
    was, now = read_record(folder / DECISIONS).get("examples_a_step"), examples_a_step(options, processes())
    if was is None or now is None:  # it stopped before that was decided, or tokens decide
        return changed
    if was == now:
        return {key: values for key, values in changed.items() if key not in SIZES}
    if begun and not SIZES & changed.keys():
        return {**changed, _STEP: (was, now)}
    return changed


def _other_step(was: int, now: int) -> str:
    here = "1 process" if processes() == 1 else f"{processes()} processes"
    return f"a step had {was} examples and has {now} with {here}; --global_batch_size {was} keeps it with any number"


def _longer(changed: dict[str, tuple[Any, Any]]) -> set[str]:
    """Those of the changes that only make the run longer."""
    return {key for key, (was, now) in changed.items() if key in _LENGTH and now and now > (was or _LENGTH[key])}


def to_start_over(options: dict[str, Any]) -> str:
    """How, for a message. A command with --overwrite_output_dir that began the run goes on with it."""
    if not options.get("overwrite_output_dir"):
        return "add --overwrite_output_dir to start over"
    never = ", or add --resume_from_checkpoint never," if can_begin_anew(options) else ""
    return f"remove this one{never} to start over"


def can_begin_anew(options: dict[str, Any]) -> bool:
    """Whether the command that began a run can be told not to go on with it: recipes lack that option."""
    return options.get("command") in TRAINING_COMMANDS


def fingerprint(folder: Path) -> str:
    """Changes when a run begins or ends in ``folder``, or has a checkpoint more or less."""
    text, state = b"", read_record(folder / STATUS).get("state")
    with suppress(OSError):
        text = (folder / RUN).read_bytes()
    names = [place.name for _, place in checkpoints(folder)]
    return hashlib.sha256(repr((text, state == "finished", names)).encode()).hexdigest()


def require_unchanged(folder: Path, before: str) -> None:
    """Raise :class:`UserError` when the :func:`fingerprint` of ``folder`` is no longer what it was ``before``."""
    if fingerprint(folder) != before:
        raise UserError(
            f"another command has worked on the run in {folder} while this one prepared; give the command again, which "
            "then goes by what lies there now",
            flag="--output_dir",
        )


def require_usable(folder: Path, found: Found, options: dict[str, Any]) -> None:
    """Raise :class:`UserError` where ``found`` has checkpoints and none that can be gone on from: it would silently
    start over."""
    if found.checkpoint is None and found.unusable:
        run = "a finished run" if found.ended else "an unfinished run"
        raise UserError(
            f"{folder} holds {run}, and none of its checkpoints can be gone on from{found.unusable}\nChoose another "
            f"folder, or {to_start_over(options)}; to train on from weights, give that checkpoint as "
            "--model_name_or_path and another --output_dir",
            flag="--output_dir",
        )


def look(folder: Path, command: str, options: dict[str, Any], *, overwrite: bool, again: bool = False) -> Found:
    """Look at ``folder``, and refuse what would write over something else. All that is changed: a checkpoint that a
    killed save was replacing gets its name back.

    ``again``: this launch has begun the run; a process of it that was given up may go on holding it for a while.

    Raises :class:`UserError` when it is a file, cannot be written, is held by another process, or holds another
    run or a model that this command did not make.
    """
    flag = "--output_dir"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give the name of a folder", flag=flag)
    _require_writable(folder, flag)
    _refuse_links(folder, flag)
    if is_first_process():  # the other ranks find the first one's lock
        if _is_locked(folder, _DYING if again else 0):
            raise UserError(
                f"another process is working on the run in {folder}; wait for it or choose another folder", flag=flag
            )
        put_back(folder, "checkpoint-*")
    seen = fingerprint(folder)
    if overwrite or not folder.is_dir():
        return Found("new", overwrites=overwrite, seen=seen)
    if not (folder / RUN).is_file():
        foreign = sorted(e.name for e in folder.iterdir() if MODEL_FILES.match(e.name) or CHECKPOINT.match(e.name))
        if foreign:
            keeps = ", which keeps the checkpoint that is named" if options.get("resume_from_checkpoint") else ""
            raise UserError(
                f"{folder} holds a model that this command would write over ({', '.join(foreign[:3])}); "
                f"choose another folder, or add --overwrite_output_dir{keeps}",
                flag=flag,
            )
        return Found("new", seen=seen)
    return replace(_inspect_run(folder, command, options, flag), seen=seen)


def _inspect_run(folder: Path, command: str, options: dict[str, Any], flag: str) -> Found:
    try:
        run = read_json(folder / RUN)
        before, ran = run["options"], run["command"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}/{RUN} cannot be read ({error}); choose another folder, or add --overwrite_output_dir", flag=flag
        ) from error
    status = read_record(folder / STATUS)
    changed = differing(command, before, options) if ran == command else {}
    changed = _but_for_the_division(folder, changed, options, begun=status.get("state") != "finished")
    longer = _longer(changed)
    extends = longer if options.get("extend") else set()
    lines = [
        f"--{key} was {was!r} and is now {now!r}" if key != _STEP else _other_step(was, now)
        for key, (was, now) in changed.items()
        if key not in extends
    ]
    if ran != command:
        lines = [f"it was made by lmtrain {ran}"]
    if lines and not (ran == command and options.get("accept_changes")):
        shown = "\n".join(f"    {line}" for line in lines)
        ways = ", or --accept_changes to go on otherwise" if ran == command and "accept_changes" in options else ""
        if changed and longer == changed.keys():
            ways = ", or --extend to go on for longer"
        raise UserError(
            f"{folder} holds another run; choose another folder, or {to_start_over(options)}{ways}:\n{shown}",
            flag=flag,
        )
    ended = status.get("state") == "finished"
    if ended and not changed:
        return Found("finished", step=int(status.get("step", 0)))
    if before.get("save_only_model"):  # without the optimizer's state a checkpoint is only a model
        return Found("unfinished", ended=ended)
    found = newest(folder)
    unusable = found.reasons if found.checkpoint is None else ""
    return Found("unfinished", found.checkpoint, found.step, found.passed_over, unusable, ended)


def _require_writable(folder: Path, flag: str) -> None:
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"{folder} cannot be made: {parent} is a file", flag=flag)
    probe = parent / f".lmtrain-write-test-{socket.gethostname()}-{rank()}-{os.getpid()}"  # containers share numbers
    try:
        probe.touch()
        probe.unlink(missing_ok=True)
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


def _is_locked(folder: Path, patience: float) -> bool:
    if not (folder / LOCK).is_file():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=patience)
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
