"""What a command does with its output folder: begin, go on and from where, or nothing (a table: docs/checkpoints.md).

``--overwrite_output_dir`` and ``--resume_from_checkpoint PATH`` or ``never`` say how a run begins. The very command
that began it (a job that is queued again after exit code 75) goes on from what it has made since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmtrain.config.save import defaults, without_secrets
from lmtrain.config.values import NEVER, YES, user_path
from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json, read_record
from lmtrain.core.launching import processes
from lmtrain.engine.checkpoints.deepspeed import require_as_many
from lmtrain.engine.checkpoints.read import STATE, checkpoints, has_optimizer_state, problem
from lmtrain.engine.runs.found import Found, can_begin_anew, look, require_usable, to_start_over
from lmtrain.engine.runs.run_folder import DATA, DECISIONS, RUN, STATUS, free_name

_FLAG = "--resume_from_checkpoint"


def require_same_data(
    folder: Path, manifest: dict[str, Any], options: dict[str, Any] | None = None, *, by: str = "key"
) -> None:
    """Raise :class:`UserError` when an unfinished run in ``folder`` began with another text than it would go on with.

    ``manifest`` is :meth:`lmtrain.data.corpus.Corpus.manifest` of now, ``options`` are the command's. ``by`` is what of
    it is compared: the text with its tokenizer, or the ``sources`` alone, where that is the run's own, written anew.
    """
    try:
        before: dict[str, Any] = read_json(folder / DATA)["stores"]
        keys = {split: store[by] for split, store in before.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # it stopped before that was written
    changed = [split for split, store in manifest["stores"].items() if keys.get(split, store[by]) != store[by]]
    if changed:
        raise UserError(
            f"the {' and '.join(changed)} text or its tokenizer has changed since the run in {folder} began, so it "
            f"cannot go on from where it was; choose another folder, or {to_start_over(options or {})}",
            flag="--output_dir",
        )


def where_to_begin(
    folder: Path,
    command: str,
    options: dict[str, Any],
    argv: Sequence[str] | None = None,
    *,
    again: bool = False,
) -> Found:
    """What a training in ``folder`` begins with, by its ``options`` (:func:`lmtrain.config.save.as_dict`) and by what
    lies there. Nothing is changed.

    ``again``: this launch has begun the run, and its processes were started anew. ``argv`` is the command line; None
    where it is another one than the run's would be. Raises :class:`UserError` as
    :func:`~lmtrain.engine.runs.found.look` does, and for a checkpoint that cannot be gone on from.
    """
    asked = options.get("resume_from_checkpoint")
    overwrite = bool(options.get("overwrite_output_dir"))
    if overwrite and asked is not None and asked.lower() in YES:
        raise UserError(
            "goes on from the newest checkpoint, and --overwrite_output_dir removes it; leave out one of them",
            flag=_FLAG,
        )
    began_it = (again and (folder / RUN).is_file()) or _began_it(folder, command, options, argv)
    found = look(folder, command, options, overwrite=overwrite and not began_it, again=again)
    if found.state == "finished":
        point = replace(found, lines=_of_a_finished(asked))
    elif began_it:
        point = replace(_again(asked, found, folder, options), is_its_own=True)
    else:
        if asked is None or asked.lower() in YES:
            require_usable(folder, found, options)
            _require_a_checkpoint(folder, found, options)
        point = _asked_for(asked, found, folder)
    return _with_as_many(replace(point, seen=found.seen))


def goes_on_with_it(found: Found) -> bool:
    """Whether the run in the folder itself is gone on with: its decisions hold and its text has to be the same."""
    return found.state == "unfinished" and not found.overwrites


def decided_by(folder: Path, found: Found) -> dict[str, Any]:
    """What an unfinished run that is gone on with decided when it began."""
    return read_record(folder / DECISIONS) if goes_on_with_it(found) else {}


def _began_it(folder: Path, command: str, options: dict[str, Any], argv: Sequence[str] | None) -> bool:
    """Whether this very command began the unfinished run in ``folder``."""
    try:
        run = read_json(folder / RUN)
        before, began = run["options"], run.get("command")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    if began != command or read_record(folder / STATUS).get("state") == "finished":
        return False
    if argv is not None and run.get("argv") != without_secrets(command, argv):
        return False
    missing = defaults(command)  # an option that is younger than the run had its default
    keys = (before.keys() | options.keys()) - {"local_rank"}
    return all(before.get(key, missing.get(key)) == options.get(key, missing.get(key)) for key in keys)


def _again(asked: str | None, found: Found, folder: Path, options: dict[str, Any]) -> Found:
    """Where the command goes on that began the run: from what that has made since, if anything."""
    names_one = asked is not None and asked.lower() not in YES | NEVER
    if asked is not None and names_one and found.checkpoint is None:
        point = _named(asked)
        return replace(point, passed_over=tuple(line.strip() for line in found.unusable.splitlines()[1:]))
    require_usable(folder, found, options)
    lines = []
    if options.get("overwrite_output_dir"):
        never = (asked or "").lower() in NEVER or not can_begin_anew(options)
        anew = "" if never else "; with --resume_from_checkpoint never it begins anew"
        lines.append(f"--overwrite_output_dir: this command began the run that lies there and goes on with it{anew}")
    if names_one:
        lines.append(f"--resume_from_checkpoint {asked}: the run began there and has come further since")
    return replace(found, lines=tuple(lines))


def _of_a_finished(asked: str | None) -> tuple[str, ...]:
    if asked is None or asked.lower() in YES:
        return ()
    return (f"--resume_from_checkpoint {asked} has no part in it: the run is finished",)


def _require_a_checkpoint(folder: Path, found: Found, options: dict[str, Any]) -> None:
    """A finished run that is to go on, longer or otherwise, would silently be trained from the first step."""
    if found.ended and found.checkpoint is None:
        raise UserError(
            f"the run in {folder} is finished and kept no checkpoint to go on from; to train on from its weights give "
            f"it as --model_name_or_path and another --output_dir, or {to_start_over(options)}",
            flag="--output_dir",
        )


def _with_as_many(point: Found) -> Found:
    if point.checkpoint is not None:
        require_as_many(point.checkpoint, processes())
    return point


def _asked_for(asked: str | None, found: Found, folder: Path) -> Found:
    if asked is None or asked.lower() in YES:
        return found
    there = [] if found.overwrites else checkpoints(folder)
    if asked.lower() in NEVER:
        if found.state == "new":
            return found
        if found.ended:
            raise UserError("the run there is finished; to train it anew add --overwrite_output_dir", flag=_FLAG)
        return Found("new", **_leaving([place for _, place in there]))
    point = _named(asked)
    inside = [step for step, place in there if place.resolve() == user_path(asked).resolve()]
    left = [place for step, place in there if not inside or step > inside[0]]
    return replace(point, overwrites=found.overwrites, **_leaving(left))


def _leaving(places: list[Path]) -> dict[str, Any]:
    """They would be taken for the newest of the training that begins. None is removed: it took hours to make."""
    if not places:
        return {}
    names = ", ".join(place.name for place in places)
    where = "it is set aside as" if len(places) == 1 else "they are set aside, the first as"
    aside = free_name(places[0]).name
    line = f"{names}: of the training that is left here; {where} {aside}. Remove what you do not need"
    return {"set_aside": tuple(places), "lines": (line,)}


def _named(asked: str) -> Found:
    folder = user_path(asked)
    if not folder.is_dir():
        raise UserError(
            f"no such folder: {asked} (a checkpoint's folder, true for the newest, never to begin at the first step)",
            flag=_FLAG,
        )
    try:
        step = int(read_json(folder / STATE)["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{asked} is no checkpoint of a run (those are called checkpoint-N); to begin with its weights, "
            "give it as --model_name_or_path",
            flag=_FLAG,
        ) from None
    if wrong := problem(folder):
        raise UserError(f"{asked} cannot be gone on from: {wrong}; name an earlier one", flag=_FLAG)
    if not has_optimizer_state(folder):
        raise UserError(
            f"{asked} holds no optimizer state, so training cannot go on from it; to begin with its weights, "
            "give it as --model_name_or_path",
            flag=_FLAG,
        )
    return Found("unfinished", folder, step)
