"""DDP looks for weights without a gradient only where there may be any, and that changes no bit."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launching import MARKS, launch
from lmtrain.engine.distributed.ddp import _every_pass_is_alike
from tiny import gpt2


def test_models_whose_passes_differ_are_known() -> None:
    model = gpt2()
    assert _every_pass_is_alike(model)
    model.config.layerdrop = 0.0
    assert _every_pass_is_alike(model)
    model.config.layerdrop = 0.1
    assert not _every_pass_is_alike(model)
    assert not _every_pass_is_alike(SimpleNamespace(config=gpt2().config)), "another's code may go any way"


def several(test: Any) -> Any:
    for mark in MARKS:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, object]]]:
    folder = tmp_path_factory.mktemp("ddp")
    launch(Path(__file__).with_name("ddp_ranks.py"), folder, processes=2, timeout=400)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@several
def test_it_looks_where_it_must(seen: list[dict[str, dict[str, object]]]) -> None:
    for rank in seen:
        assert {name: one["looks"] for name, one in rank.items()} == {"plain": False, "asked": True, "unused": True}
        assert all(one["views"] and one["steps"] == 6 for one in rank.values())


@several
def test_looking_changes_no_bit(seen: list[dict[str, dict[str, object]]]) -> None:
    first, second = seen
    assert first["plain"]["weights"] == first["asked"]["weights"] == second["plain"]["weights"]
