"""docs/scale.md is what its command makes of the recorded measurements."""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path

import pytest

from lmtrain.rehearsal.scale.preparation import preparation
from lmtrain.rehearsal.scale.saves import Storage, restart, sharded, whole

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_what_the_command_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    pages = importlib.import_module("scale_page")
    for name in ("outlook", "play_through"):  # of what is the same on both pages it is the same
        monkeypatch.setattr(pages, name, cache(getattr(pages, name)))
    record = json.loads((ROOT / "benchmarks" / "scale.json").read_text(encoding="utf-8"))
    page = pages.Page(record).text()
    assert page == (ROOT / "docs" / "scale.md").read_text(encoding="utf-8"), "make scale writes it anew"
    faster = pages.Page({**record, "prepare_mbps": 2 * record["prepare_mbps"]}).text()
    changed = [new for new, old in zip(faster.splitlines(), page.splitlines(), strict=True) if new != old]
    assert len(changed) == 5, "the rate itself, and its four rows: nothing else rests on it"


def test_preparing_goes_with_the_text_and_the_machines() -> None:
    made = preparation(1e9, rate=1e7, bytes_per_token=4.0, vocabulary=50_257, machines=8)
    assert (made.text, made.store, made.seconds, made.machine_seconds) == (4e9, 2e9, 50.0, 400.0)
    assert preparation(1e9, rate=1e7, bytes_per_token=4.0, vocabulary=70_000).store == 4e9


def test_a_save_is_a_copy_or_a_write() -> None:
    storage = Storage(disk=1e9, memory=1e10)
    behind, before = whole(1e10, storage), whole(1e10, storage, background=False)
    assert (behind.pause, behind.write) == (1.0, 10.0)
    assert (before.pause, before.write) == (10.0, 0.0)
    parts = sharded(1e10, storage, devices=16, machines=2)
    assert (parts.pause, parts.write) == (5.0, 0.0)
    copied = sharded(1e10, storage, devices=16, machines=2, background=True)
    assert (copied.pause, copied.write) == (pytest.approx(1e10 / 16 / 1e10), 5.0)


def test_a_shared_store_bounds_all_machines() -> None:
    storage = Storage(disk=1e9, memory=1e10, shared=4e9)
    assert sharded(1e10, storage, devices=1024, machines=128).seconds == 2.5
    assert restart(1e10, storage, 1, start=60, is_sharded=False) == 70
    assert restart(1e10, storage, 128, start=60, is_sharded=True) == pytest.approx(62.5)
    assert restart(1e10, storage, 128, start=60, is_sharded=False) == 60 + 128 * 2.5
