"""``--work_dir``: a run folder that holds the original's checkpoints, and what the same command finds there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmtrain.config.commands.gpt2_ft import Gpt2FtOptions
from lmtrain.config.save import as_dict, without_secrets
from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError
from lmtrain.engine.runs.found import Found
from lmtrain.engine.runs.results import write_results
from lmtrain.engine.runs.resume import decided_by, require_same_data, where_to_begin
from lmtrain.engine.runs.run_folder import RUN, RunFolder
from lmtrain.evaluate.measures import perplexity
from lmtrain.recipes.flags import in_flags
from lmtrain.recipes.gpt2_ft.order import Plan
from lmtrain.recipes.gpt2_ft.recorder import Recorder

COMMAND = "gpt2-ft"
FLAGS = {"--output_dir": "--work_dir", "--overwrite_output_dir": "--overwrite_work_dir"}
_CHECKPOINT = re.compile(r"model\.\d+\.pt$")
_FREE = (
    frozenset({"work_dir", "overwrite_work_dir", "log_interval", "save_interval"}) | Gpt2FtOptions.WITHOUT_EFFECT.keys()
)
"""Options that may differ from one start to the next: they do not change what is computed."""


def path_of(options: Gpt2FtOptions) -> Path:
    return user_path(options.work_dir or os.environ.get("PT_OUTPUT_DIR") or "gpt2_model")


def look(options: Gpt2FtOptions, argv: Sequence[str]) -> Found:
    """What to begin with, by what lies in ``--work_dir``. Raises :class:`UserError` where it would be written over.

    The original writes into whatever it finds, so that checkpoints of two runs lie side by side.
    """
    folder = path_of(options)
    with in_flags(FLAGS):
        found = where_to_begin(folder, COMMAND, _recorded(options), argv)
    if found.state == "new" and not found.overwrites and not (folder / RUN).is_file():
        others = sorted(entry.name for entry in _checkpoints(folder))
        if others:
            raise UserError(
                f"{folder} holds checkpoints of another run ({', '.join(others[:3])}), which this one would write over "
                "or lie between; choose another folder, or add --overwrite_work_dir to remove them",
                flag="--work_dir",
            )
    return found


def decided(options: Gpt2FtOptions, found: Found) -> dict[str, Any]:
    """What an unfinished run decided when it began."""
    return decided_by(path_of(options), found)


def require_same_pairs(options: Gpt2FtOptions, hashes: Mapping[str, str]) -> None:
    """Raise :class:`UserError` when the run in ``--work_dir`` began with other data than it would go on with."""
    with in_flags(FLAGS):
        require_same_data(path_of(options), _manifest(hashes), _recorded(options))


def begin(run: RunFolder, options: Gpt2FtOptions, argv: Sequence[str], hashes: Mapping[str, str], found: Found) -> None:
    """Write down what the run is; of a run that is to be overwritten, remove the checkpoints."""
    if found.overwrites:
        for checkpoint in _checkpoints(run.path):
            checkpoint.unlink()
    run.describe(COMMAND, without_secrets(COMMAND, argv), _recorded(options))
    run.data(_manifest(hashes))


def end(run: RunFolder, plan: Plan, recorder: Recorder) -> None:
    """The last evaluation as ``eval_results.json``, and the run is finished."""
    if recorder.evaluations:
        last = recorder.evaluations[-1]
        figures = {"eval_loss": last["loss"], "perplexity": perplexity(last["loss"]), "step": last["step"]}
        write_results(run.path, "eval", figures)
    run.status("finished", step=plan.total)


def _recorded(options: Gpt2FtOptions) -> dict[str, Any]:
    kept = {name: value for name, value in as_dict(options).items() if name not in _FREE}
    return kept | ({"overwrite_output_dir": True} if options.overwrite_work_dir else {})


def _manifest(hashes: Mapping[str, str]) -> dict[str, Any]:
    return {"stores": {split: {"key": value} for split, value in hashes.items()}}


def _checkpoints(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if _CHECKPOINT.match(entry.name)] if folder.is_dir() else []
