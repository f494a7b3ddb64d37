"""Rehearse one run on each process; rank 1 finds something that rank 0 does not. Words: FOLDER COMMAND [spoilt]."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from stages import stage_of

from lmtrain.core.errors import UserError
from lmtrain.engine.processes import leave_together
from lmtrain.rehearsal.rehearse import rehearse


def main() -> None:
    folder, command, spoilt = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    stage = stage_of(command, folder / "out")
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    if spoilt and rank == 1:
        stage.parts.model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = torch.inf
    try:
        said = " ".join(rehearse(stage).done)
    except UserError as error:
        said = str(error)
    (folder / f"rank-{rank}").write_text(said)
    del stage
    leave_together()


main()
