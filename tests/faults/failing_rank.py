"""``lmtrain`` with a fault in one of its processes: in the step STEP of the rank FAILS; run by test_failing_rank.py."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from lmtrain.cli.main import main
from lmtrain.engine.trainer import LMTrainer


def break_a_step(fails: str, step: int) -> None:
    inherited = LMTrainer.training_step

    def training_step(self: LMTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step:
            warnings.warn(f"nearly there, says {os.environ['RANK']}", stacklevel=1)
            if os.environ["RANK"] == fails:
                raise LookupError("the example has gone")
        return inherited(self, *args, **kwargs)

    LMTrainer.training_step = training_step  # type: ignore[method-assign]


if __name__ == "__main__":
    break_a_step(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
