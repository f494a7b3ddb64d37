"""Which checkpoints stay, and what of them. At no moment does a half removed one carry a checkpoint's name."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from lmtrain.core.files import sync_folder
from lmtrain.engine.checkpoints.manifest import MANIFEST, read_manifest, write_manifest
from lmtrain.engine.checkpoints.read import (
    OPTIMIZER,
    OPTIMIZER_GROUPS,
    SCALER,
    SCHEDULER,
    SHARDED_OPTIMIZER,
    checkpoints,
    shows_damage,
)

_FOR_GOING_ON = (OPTIMIZER, OPTIMIZER_GROUPS, SCHEDULER, SCALER)


def tidy(
    folder: Path, step: int, *, limit: int | None, keep_optimizer_states: int | None, keep: Collection[int] = ()
) -> None:
    """After the checkpoint of ``step`` has been written: remove what is too many in ``folder``.

    At most ``limit`` checkpoints stay, and damaged ones go first; that of ``step``, which is known to be good, and
    those in ``keep`` (the best) stay whatever the limit. Of the whole ones that stay the newest
    ``keep_optimizer_states`` can be gone on from, older ones hold weights only. Later checkpoints than ``step`` belong
    to a part of the run that is being repeated: they are left to be written over. Raises ``OSError`` when something
    cannot be removed.
    """
    earlier = [(number, path) for number, path in checkpoints(folder) if number <= step]
    damaged = [(number, path) for number, path in earlier if number != step and shows_damage(path)]
    whole = [entry for entry in earlier if entry not in damaged]
    if limit is not None and limit > 0:
        spared = {step, *keep}
        too_many = [entry for entry in damaged + whole if entry[0] not in spared][: max(0, len(earlier) - limit)]
        for _, path in too_many:
            remove(path)
        whole = [entry for entry in whole if entry not in too_many]
    if keep_optimizer_states is not None:
        for number, path in whole[: max(0, len(whole) - keep_optimizer_states)]:
            if number != step:
                keep_weights_only(path)


def remove(checkpoint: Path) -> None:
    """Take its name from a checkpoint, then delete it: a kill in between leaves scratch, not half a checkpoint.

    Of one that is a link only the link goes.
    """
    if checkpoint.is_symlink():
        checkpoint.unlink()
        return
    nameless = Path(tempfile.mkdtemp(prefix=f".{checkpoint.name}.", suffix=".tmp", dir=checkpoint.parent))
    checkpoint.replace(nameless)
    shutil.rmtree(nameless, ignore_errors=True)


def keep_weights_only(checkpoint: Path) -> None:
    """Delete what only training needs; first the manifest says so, for it must never list a file that is gone.

    One without a manifest, of another trainer, is left as it is, and so is what a link leads to.
    """
    if checkpoint.is_symlink() or not (checkpoint / MANIFEST).is_file():
        return
    with suppress(ValueError):  # damaged: it will be passed over as it is
        content = read_manifest(checkpoint)
        if content["optimizer_state"]:
            content["files"] = {name: about for name, about in content["files"].items() if not _is_for_going_on(name)}
            write_manifest(checkpoint, {**content, "optimizer_state": False})
        left = [path for path in checkpoint.rglob("*") if _is_for_going_on(path.relative_to(checkpoint).as_posix())]
        for path in left:
            if path.is_file():
                path.unlink()
        if left:
            sync_folder(checkpoint)


def _is_for_going_on(name: str) -> bool:
    return name in _FOR_GOING_ON or name.startswith(f"{SHARDED_OPTIMIZER}/")
