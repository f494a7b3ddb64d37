"""Rehearse a run on each process, and once more where rank 1 finds something that rank 0 does not.

Words: FOLDER COMMAND. Each writes what it found into FOLDER: rank-0, spoilt-0 and so on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from stages import stage_of

from lmtrain.core.errors import UserError
from lmtrain.engine.distributed.processes import leave_together
from lmtrain.rehearsal.rehearse import rehearse


def found(command: str, out: Path, *, spoilt: bool = False) -> str:
    stage = stage_of(command, out)
    if spoilt:
        stage.parts.model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = torch.inf
    try:
        return " ".join(rehearse(stage).done)
    except UserError as error:
        return str(error)


def main(folder: Path, command: str) -> None:
    rank = int(os.environ["RANK"])
    (folder / f"rank-{rank}").write_text(found(command, folder / "out"))
    (folder / f"spoilt-{rank}").write_text(found(command, folder / "out", spoilt=rank == 1))
    leave_together()


main(Path(sys.argv[1]), sys.argv[2])
