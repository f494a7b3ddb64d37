"""What one process does for all: the others wait, and end with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from launching import MARKS, launch
from lmtrain.engine.distributed.processes import by_the_first

pytestmark = MARKS


def test_the_others_wait_and_end_with_the_first(tmp_path: Path) -> None:
    launch(Path(__file__).with_name("processes_ranks.py"), tmp_path, processes=2)
    first, second = ((tmp_path / f"{rank}.txt").read_text().splitlines() for rank in range(2))
    stopped, told = "Interrupted: SIGTERM", "Interrupted: process 0: SIGTERM"
    assert first == ["worked", "OwnResultWrong: it differs", "OSError: no space", stopped, stopped, stopped]
    assert second == ["OwnResultWrong: it differs", "OwnResultWrong: no space", stopped, told, told]


def test_alone_it_is_only_done() -> None:
    done: list[int] = []
    by_the_first(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(OSError, match="no space"):
        by_the_first(lambda: (_ for _ in ()).throw(OSError("no space")))
