"""Checkpoints that DeepSpeed wrote by itself: who may go on from them.

ZeRO keeps the optimizer's state as one flat piece a process and reads it back on as many processes alone
("Automatic adjustment of ZeRO's optimizer state partitioning with a new world size is not currently supported", its
engine.py). ::

    checkpoint-500/latest                                                      the name of the folder beside it
    checkpoint-500/global_step500/[bf16_]zero_pp_rank_3_mp_rank_00_optim_states.pt    the piece of process 3
    checkpoint-500/latest_universal                                            where ds_to_universal.py converted it
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from lmtrain.core.errors import UserError

_PIECE = re.compile(r"zero_pp_rank_(\d+)_mp_rank_\d+_optim_states\.pt$")


def written_by(checkpoint: Path) -> int | None:
    """How many processes have to go on from ``checkpoint``; None where any number may."""
    if (checkpoint / "latest_universal").is_file():
        return None
    numbers: set[str] = set()
    with suppress(OSError):
        name = (checkpoint / "latest").read_text(encoding="utf-8").strip()
        found = (_PIECE.search(entry.name) for entry in (checkpoint / Path(name).name).iterdir())
        numbers = {match[1] for match in found if match}
    return len(numbers) or None


def require_as_many(checkpoint: Path, processes: int) -> None:
    """Raise :class:`UserError` where DeepSpeed would refuse to read ``checkpoint`` on so many processes."""
    needed = written_by(checkpoint)
    if needed is not None and needed != processes:
        raise UserError(
            f"{checkpoint} was saved by DeepSpeed on {needed} processes, which alone can go on from it, and there "
            f"{'is 1' if processes == 1 else f'are {processes}'}; start as many, or convert it with DeepSpeed's "
            "ds_to_universal.py, or begin with its weights: --model_name_or_path",
            flag="--resume_from_checkpoint",
        )
