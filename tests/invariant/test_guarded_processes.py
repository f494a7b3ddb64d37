"""One process's infinite loss makes none of them update, and all know the examples it came from; all hear a signal."""

import json
import math
from pathlib import Path

import pytest
import torch

from launching import MARKS, launch
from lmtrain.core.streams import permutation
from lmtrain.engine.checkpoints.read import newest

pytestmark = MARKS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guarded")
    launch(Path(__file__).with_name("guarded_ranks.py"), folder, processes=2)
    return folder


def test_a_signal_to_one_ends_the_evaluation_of_all(folder: Path) -> None:
    left, right = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (left["straight"]["batches"], right["straight"]["batches"]) == (42, 40), "two times"
    for each in (left, right):
        for way in ("left", "left with metrics", "left in a stream"):
            assert each[way]["batches"] == 7, "told with the fourth, heard with the eighth"
            assert each[way]["stopped"] and each[way]["heard"] and each[way]["step"] == 2
            assert each[way]["scores"] == []
        whole, resumed = each["straight"], each["left, resumed"]
        assert not resumed["stopped"] and resumed["step"] == 3
        assert (resumed["losses"], resumed["scores"]) == (whole["losses"], whole["scores"])
    assert newest(folder / "left").step == 3 and not newest(folder / "left").passed_over


def test_all_processes_skip_the_same_step(folder: Path) -> None:
    left, right = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
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
    found = newest(folder / "stopped")
    assert found.checkpoint is not None and found.step == 4 and not found.passed_over, "nothing else was to be saved"
    for rank in (0, 1):
        assert "the last 2 steps, up to 5" in (told := (folder / f"{rank}.txt").read_text())
        assert f"is in {folder}/stopped/checkpoint-4" in told
