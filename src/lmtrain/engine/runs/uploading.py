"""A model that was exported goes to the hub, after its run has ended: what becomes of it is no part of the training."""

from __future__ import annotations

import shlex
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from lmtrain.config.options import Resolved
from lmtrain.core.console import Say, amount, counted, say
from lmtrain.core.errors import ExitCode, Interrupted, UserError
from lmtrain.core.files import read_record, sha256_file
from lmtrain.engine.runs.run_folder import EXPORT, RUN, STATUS, RunFolder
from lmtrain.models.exporting.hub_upload import Destination, Uploaded, upload


def destination_of(resolved: Resolved) -> Destination | None:
    """Where a training is asked to upload its model; None where it is not."""
    given = resolved.training
    if not given.get("push_to_hub"):
        return None
    return Destination(
        given.get("hub_model_id"),
        given.get("hub_token") or resolved.model.token,
        given.get("hub_private_repo"),
        given.get("hub_revision"),
    )


def upload_run(folder: Path, resolved: Resolved, say: Say = say) -> ExitCode:
    """Upload the model of a finished run where ``resolved`` asks for it; a failure is told and leaves the run finished.

    Call it in the first process, when the others are gone: how long it takes is the network's choice. What was
    uploaded before, as it is, is not uploaded again.
    """
    to = destination_of(resolved)
    if to is None:
        return ExitCode.OK
    before = read_record(folder / STATUS).get("upload") or {}
    wanted = {"hub_model_id": to.repo_id, "revision": to.revision, "export": _export_hash(folder)}
    if before.get("state") == "done" and {key: before.get(key) for key in wanted} == wanted:
        say("upload", f"uploaded already: {before.get('url')}")
        return ExitCode.OK
    try:
        upload_folder(folder, to, say)
    except (UserError, Interrupted) as error:  # a signal too: the run is finished, and its command has nothing to go on
        reasons = "; ".join(problem.text for problem in error.problems) if isinstance(error, UserError) else str(error)
        say(
            "attention",
            f"upload failed: {reasons}\nthe run is finished, and its model complete in {folder}; to repeat only the "
            f"upload:\n{push_command(folder, to)}",
        )
        return ExitCode.UPLOAD_FAILED
    return ExitCode.OK


def upload_folder(folder: Path, to: Destination, say: Say = say) -> Uploaded:
    """Upload the model in ``folder``; where that is a run's, hold its lock and write into its status what came of it.

    Raises :class:`UserError`, and of it :class:`~lmtrain.models.exporting.hub_upload.HubError` where the hub did not
    take it.
    """
    is_run = (folder / RUN).is_file()
    for line in _remarks(folder, is_run):
        say("attention", line)
    with RunFolder(folder) if is_run else nullcontext() as run:
        failure: BaseException | None = None
        came: dict[str, Any] = {}
        try:
            found = upload(folder, to)
            came = {"state": "done", "url": found.url, "repository": found.repository}
        except BaseException as error:  # raised again when the folder is closed: no fault of the run, which is finished
            failure = error
            came = {"state": "failed", "reason": str(error) or type(error).__name__}
        if run is not None:
            came |= {"hub_model_id": to.repo_id, "revision": to.revision, "export": _export_hash(folder)}
            run.status(str(read_record(folder / STATUS).get("state", "finished")), upload=came)
    if failure is not None:
        raise failure
    say("upload", f"{counted(found.files, 'file')}, {amount(found.size, 'B')}: {found.url}")
    return found


def _remarks(folder: Path, is_run: bool) -> list[str]:
    """What whoever loads the model from the hub should know, or the one who uploads it."""
    remarks = []
    state = read_record(folder / STATUS).get("state")
    if is_run and state != "finished":
        step = read_record(folder / EXPORT).get("step")
        remarks.append(f"the run in {folder} is {state}; what is uploaded is the model that it exported at step {step}")
    base = str(read_record(folder / "adapter_config.json").get("base_model_name_or_path") or "")
    if Path(base).is_absolute() and not (folder / "config.json").is_file():
        remarks.append(
            f"the adapter names its base by a folder of this machine, {base}: others need that model; "
            "a whole model has none: lmtrain export --to merged"
        )
    return remarks


def push_command(folder: Path, to: Destination) -> str:
    """The command line that makes the same upload."""
    words = ["lmtrain", "push", str(folder)]
    words += ["--hub_model_id", to.repo_id] if to.repo_id else []
    words += ["--hub_private_repo"] if to.private else []
    words += ["--hub_revision", to.revision] if to.revision else []
    return shlex.join(words) + (" --hub_token ..." if to.token else "")


def _export_hash(folder: Path) -> str | None:
    with suppress(OSError):
        return sha256_file(folder / EXPORT)
    return None
