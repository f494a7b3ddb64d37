"""Several trainings of one command, each in a folder of its own inside the command's.

The command's folder says which command works there and whether that has ended (``run.json``, ``status.json``), as a
single training's does. So ``--overwrite_output_dir`` does to them what docs/checkpoints.md says: the very command that
began them goes on with those that it has begun, and takes over those that it has finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lmtrain.config.save import without_secrets
from lmtrain.core.console import Say, is_first_process
from lmtrain.core.files import read_json
from lmtrain.engine.distributed.meeting import begun_before, meet, note_begun, wait_for_all
from lmtrain.engine.runs.found import Found, fingerprint, look, require_unchanged
from lmtrain.engine.runs.resume import where_to_begin
from lmtrain.engine.runs.run_folder import DECISIONS, RUN, RunFolder


@dataclass(frozen=True)
class Trainings:
    """What a command does with its ``folder``, in which the runs ``names`` lie or will lie.

    ``replaced`` has a fingerprint of each run from before the command, which goes when its training begins.
    """

    folder: Path
    command: str
    options: dict[str, Any]
    argv: Sequence[str]
    found: Found
    replaced: dict[str, str]

    def begins_anew(self, name: str) -> bool:
        """Whether what lies in the folder of a training is to be removed first; of a run whose removal was cut short
        the rest."""
        if not self.options["overwrite_output_dir"]:
            return False
        run = self.folder / name
        return not (run / RUN).is_file() or fingerprint(run) == self.replaced.get(name)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Hold the folder; the command has ended when the block does. Every process has to come here, and has to have
        asked :meth:`begins_anew` before what it does inside is seen by the others."""
        if self.options["overwrite_output_dir"]:
            wait_for_all()  # or the others would find what the first one writes now
        still = partial(require_unchanged, self.folder, self.found.seen)
        with RunFolder(self.folder, still=still, writes=is_first_process()) as run:
            run.decisions({"replaced": self.replaced})  # first: run.json says that they are this command's
            run.describe(self.command, without_secrets(self.command, self.argv), self.options)
            if is_first_process():
                note_begun(str(self.folder))
            run.status("training")
            yield
            run.status("finished")


def look_at(
    folder: Path, command: str, options: dict[str, Any], argv: Sequence[str], names: Sequence[str], say: Say
) -> Trainings:
    """What ``command`` is to do with its ``folder``; nothing is changed. ``options`` are those of
    :func:`lmtrain.config.save.as_dict`.

    Options that differ are for each training to judge: others may be about what is done with its model. Raises
    :class:`UserError` where the folder holds something else.
    """
    again = begun_before(str(folder))
    if not options["overwrite_output_dir"]:
        theirs = {**options, "accept_changes": True}
        found = look(folder, command, theirs, overwrite=False, again=again)
        return Trainings(folder, command, options, argv, found, {})
    meet()
    found = where_to_begin(folder, command, options, argv, again=again)
    for line in found.lines:
        say("run", line)
    before = _replaced(folder) if found.is_its_own else {name: fingerprint(folder / name) for name in names}
    return Trainings(folder, command, options, argv, found, before)


def _replaced(folder: Path) -> dict[str, str]:
    with suppress(OSError, ValueError, KeyError):
        found: dict[str, str] = read_json(folder / DECISIONS)["replaced"]
        return found
    return {}
