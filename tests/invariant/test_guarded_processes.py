"""One process's infinite loss makes none of them update, and all know the examples it came from."""

import math
from pathlib import Path

import torch

from launching import MARKS, launch
from lmtrain.core.streams import permutation
from lmtrain.engine.checkpoints.read import newest

pytestmark = MARKS


def test_all_processes_skip_the_same_step(tmp_path: Path) -> None:
    launch(Path(__file__).with_name("guarded_ranks.py"), tmp_path, processes=2)
    left, right = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, weight in left["weights"].items():
        assert torch.equal(weight, right["weights"][name]), name
        assert weight.isfinite().all(), name
        for ended in (left, right):
            _, second, third = (step[name] for step in ended["begun"])
            assert torch.equal(second, third), "the second step made no update"
    assert any(not torch.equal(left["begun"][0][name], left["begun"][1][name]) for name in left["weights"])
    order = permutation(42, 0, 16).tolist()  # four a step, the second process has the latter two
    for ended in (left, right):
        assert [(event["step"], event["examples"]) for event in ended["told"]] == [(2, order[6:8])]
        assert ended["told"][0]["loss"] == math.inf
    assert [math.isfinite(loss) for loss in left["losses"]] == [True, False, True]
    found = newest(tmp_path / "stopped")
    assert found.checkpoint is not None and found.step == 4 and not found.passed_over, "nothing else was to be saved"
    for rank in (0, 1):
        assert "the last 2 steps, up to 5" in (told := (tmp_path / f"{rank}.txt").read_text())
        assert f"is in {tmp_path}/stopped/checkpoint-4" in told
