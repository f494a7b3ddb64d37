"""From which checkpoint a run goes on, and whether it still is the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmtrain.config.values import NO, YES, user_path
from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json
from lmtrain.engine.checkpoints.read import STATE, has_optimizer_state, problem
from lmtrain.engine.found import Found
from lmtrain.engine.run_folder import DATA


def require_same_data(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise :class:`UserError` when an unfinished run in ``folder`` began with another text than it would go on with.

    ``manifest`` is :meth:`lmtrain.data.corpus.Corpus.manifest` of now.
    """
    try:
        before: dict[str, Any] = read_json(folder / DATA)["stores"]
        keys = {split: store["key"] for split, store in before.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # it stopped before that was written
    changed = [split for split, store in manifest["stores"].items() if keys.get(split, store["key"]) != store["key"]]
    if changed:
        raise UserError(
            f"the {' and '.join(changed)} text or its tokenizer has changed since the run in {folder} began, so it "
            "cannot go on from where it was; choose another folder, or add --overwrite_output_dir to start over",
            flag="--output_dir",
        )


def resume_point(asked: str | None, found: Found) -> Found:
    """Where training goes on: from the checkpoint that the user names, else from what was ``found``.

    ``asked`` is the value of ``--resume_from_checkpoint``: a folder, or true or false. Raises :class:`UserError`.
    """
    flag = "--resume_from_checkpoint"
    if asked is None or asked.lower() in YES:
        return found
    if asked.lower() in NO:
        if found.checkpoint is None:
            return found
        raise UserError(
            f"to start over although {found.checkpoint} is there, add --overwrite_output_dir instead", flag=flag
        )
    folder = user_path(asked)
    if not folder.is_dir():
        raise UserError(f"no such folder: {asked}", flag=flag)
    try:
        step = int(read_json(folder / STATE)["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{asked} is no checkpoint of a run (those are called checkpoint-N); to begin with its weights, "
            "give it as --model_name_or_path",
            flag=flag,
        ) from None
    if wrong := problem(folder):
        raise UserError(f"{asked} cannot be gone on from: {wrong}; name an earlier one", flag=flag)
    if not has_optimizer_state(folder):
        raise UserError(
            f"{asked} holds no optimizer state, so training cannot go on from it; to begin with its weights, "
            "give it as --model_name_or_path",
            flag=flag,
        )
    return Found("unfinished", folder, step)
