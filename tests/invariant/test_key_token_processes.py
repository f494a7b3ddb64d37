"""Two processes on gloo make the weighted steps that one makes: seven rows, so the last round is not full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from key_ranks import trained

from launching import MARKS, launch

pytestmark = MARKS


def test_two_processes_are_one(tmp_path: Path) -> None:
    one = trained(tmp_path / "one", 4)
    launch(Path(__file__).with_name("key_ranks.py"), tmp_path, processes=2)
    for rank in (0, 1):
        two = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert two["before"] == pytest.approx(one["before"], rel=1e-6)
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
        assert two["norms"] == pytest.approx(one["norms"], rel=1e-5)
