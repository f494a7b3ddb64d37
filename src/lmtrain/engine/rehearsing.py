"""What a rehearsal is given: a run whose parts are made and that has not begun.

The engine knows that there may be one, and not what it tries: that is :mod:`lmtrain.rehearsal`'s, which stands above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lmtrain.config.options import Resolved
from lmtrain.core.console import Say
from lmtrain.engine.parts import Parts
from lmtrain.engine.runs.found import Found
from lmtrain.engine.trainer import LMTrainer


@dataclass
class Stage:
    """``make`` makes the run's own trainer; ``found`` is what lies in ``folder``, the run's output folder.

    Nothing was written to ``folder`` yet. What a rehearsal finds out about the trainer stays in it: the fast paths are
    not tried a second time.
    """

    resolved: Resolved
    parts: Parts
    folder: Path
    found: Found
    make: Callable[[], LMTrainer]
    say: Say

    @cached_property
    def trainer(self) -> LMTrainer:
        """Made when it is first asked for."""
        return self.make()

    @property
    def goes_on(self) -> bool:
        """Whether the run begins at a checkpoint: then it was rehearsed before its first step."""
        return self.found.checkpoint is not None


Rehearse = Callable[[Stage], object]
