"""The parts of a checkpoint: manifest, copies, what stays."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from lmtrain.core.files import atomic_folder, clear_scratch, read_json, sha256_json, write_json
from lmtrain.engine.checkpoints import manifest as manifests
from lmtrain.engine.checkpoints import read, write
from lmtrain.engine.checkpoints.background import Buffers, Writer
from lmtrain.engine.checkpoints.keep import keep_weights_only, tidy
from lmtrain.engine.checkpoints.manifest import MANIFEST, damage, read_manifest
from lmtrain.engine.checkpoints.plan import elsewhere, plan_differences
from lmtrain.engine.checkpoints.read import (
    believe,
    checkpoints,
    has_optimizer_state,
    newest,
    problem,
    read_tensors,
    shows_damage,
    verified,
)
from lmtrain.engine.checkpoints.write import Contents, write_checkpoint


def make(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    contents = Contents(
        step,
        lambda place: (place / "model.safetensors").write_bytes(b"weights"),
        {"optimizer.pt": {"state": {0: {"m": torch.ones(5)}}}, "scheduler.pt": {"last_epoch": step}},
        {"trainer_state.json": {"global_step": step}},
    )
    assert write_checkpoint(path, contents) > 7
    return path


def test_what_is_written_verifies_and_reads_back(tmp_path: Path) -> None:
    path = make(tmp_path, 3)
    manifest = read_manifest(path)
    assert manifest["step"] == 3 and manifest["optimizer_state"]
    assert set(manifest["files"]) == {"model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"}
    assert problem(path) is None and has_optimizer_state(path)
    assert torch.equal(read_tensors(path / "optimizer.pt")["state"][0]["m"], torch.ones(5))
    (path / "notes.txt").write_text("of the user, and no part of it")
    assert problem(path) is None


def test_what_another_process_verified_is_read_again_only_where_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read_again = make(tmp_path, 3), list[str]()
    hashed = manifests.sha256_file
    assert problem(path) is None
    told = json.dumps(verified())
    monkeypatch.setattr(read, "_verified", {})
    monkeypatch.setattr(manifests, "sha256_file", lambda file: read_again.append(file.name) or hashed(file))
    believe(json.loads(told))
    assert problem(path) is None and read_again == []
    os.utime(path / "optimizer.pt")
    assert problem(path) is None and "optimizer.pt" in read_again


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="Linux can write past the page cache")
@pytest.mark.parametrize("refuses", [False, True], ids=["taken", "refused"])
def test_tensors_are_hashed_on_their_way_past_the_page_cache(
    refuses: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And through it where the file system wants other sizes than ours."""
    from fcntl import F_GETFL, fcntl

    past, through, read = list[int](), list[int](), list[str]()
    put_out, hashed = os.write, manifests.sha256_file

    def put(descriptor: int, data: memoryview) -> int:
        goes_past = fcntl(descriptor, F_GETFL) & os.O_DIRECT
        if goes_past and refuses:
            raise OSError(errno.EINVAL, "Invalid argument")
        (past if goes_past else through).append(len(data))
        return put_out(descriptor, data)

    monkeypatch.setattr(write, "_ROOM", 1 << 16)
    monkeypatch.setattr(os, "write", put)
    monkeypatch.setattr(manifests, "sha256_file", lambda path: read.append(path.name) or hashed(path))
    state = {"m": torch.randn(50_001), "v": torch.arange(99)}
    path = tmp_path / "checkpoint-3"
    write_checkpoint(path, Contents(3, lambda place: None, {"optimizer.pt": state}, {}))
    monkeypatch.undo()
    assert read == [] and problem(path) is None
    found = read_tensors(path / "optimizer.pt")
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert set(past) <= {1 << 16} and len(past) + len(through) == 4
    if past:
        assert not refuses and len(past) == 3, "all but the end"


def test_a_newer_format_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_FORMAT", 9)
    path = make(tmp_path, 3)
    assert read_json(path / MANIFEST)["format"] == 9
    monkeypatch.undo()
    make(tmp_path, 2)
    found = newest(tmp_path)
    assert found.step == 2
    assert found.passed_over == ("checkpoint-3: manifest.json was written by a newer lmtrain (format 9)",)


def test_another_file_under_the_name_of_a_manifest_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, 2)
    write_json(make(tmp_path, 3) / MANIFEST, {"steps": 3, "sha256": sha256_json({"steps": 3})})
    assert newest(tmp_path).passed_over == ("checkpoint-3: manifest.json is no manifest of a checkpoint",)


@pytest.mark.parametrize(
    ("limit", "keep", "left"),
    [(None, [], [1, 2, 3, 4]), (2, [], [3, 4]), (1, [], [4]), (1, [2], [2, 4]), (2, [1], [1, 4]), (3, [1], [1, 3, 4])],
)
def test_the_best_and_the_last_stay_whatever_the_limit(
    limit: int | None, keep: list[int], left: list[int], tmp_path: Path
) -> None:
    for step in (1, 2, 3, 4):
        make(tmp_path, step)
    tidy(tmp_path, 4, limit=limit, keep_optimizer_states=None, keep=keep)
    assert [step for step, _ in checkpoints(tmp_path)] == left
    assert not list(tmp_path.glob(".*")), "nothing half removed lies about"


def test_later_ones_of_a_part_that_is_repeated_are_left(tmp_path: Path) -> None:
    for step in (1, 2, 9):
        make(tmp_path, step)
    tidy(tmp_path, 2, limit=1, keep_optimizer_states=1)
    assert [step for step, _ in checkpoints(tmp_path)] == [2, 9]


@pytest.mark.parametrize("hashed", [False, True], ids=["cut off", "of another hash, which a resume found"])
def test_a_damaged_one_is_none_of_those_to_go_back_to(hashed: bool, tmp_path: Path) -> None:
    """A run that passed over checkpoint 2 went on from 1, the only one there is beside the newest."""
    for step in (1, 2, 3):
        make(tmp_path, step)
    weights = tmp_path / "checkpoint-2" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if hashed else b""))
    if hashed:
        assert not shows_damage(tmp_path / "checkpoint-2"), "nothing is hashed at each save"
        assert problem(tmp_path / "checkpoint-2") is not None
    tidy(tmp_path, 3, limit=None, keep_optimizer_states=2)
    assert has_optimizer_state(tmp_path / "checkpoint-1")
    tidy(tmp_path, 3, limit=2, keep_optimizer_states=2)
    assert [step for step, _ in checkpoints(tmp_path)] == [1, 3] and has_optimizer_state(tmp_path / "checkpoint-1")


def test_older_ones_keep_weights_only(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make(tmp_path, step)
    tidy(tmp_path, 3, limit=None, keep_optimizer_states=2)
    light = tmp_path / "checkpoint-1"
    assert sorted(path.name for path in light.iterdir()) == [MANIFEST, "model.safetensors", "trainer_state.json"]
    assert problem(light) is None and not has_optimizer_state(light)
    assert has_optimizer_state(tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-3" / "model.safetensors").unlink()
    assert newest(tmp_path).step == 2
    (tmp_path / "checkpoint-2" / MANIFEST).write_text("{")
    found = newest(tmp_path)
    assert found.checkpoint is None and found.weights_only == ("checkpoint-1",)


def test_a_kill_while_optimizer_state_is_removed_leaves_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path, 1)

    def killed(self: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed)
        keep_weights_only(path)
    assert (path / "optimizer.pt").is_file() and problem(path) is None and not has_optimizer_state(path)
    keep_weights_only(path)
    assert not (path / "optimizer.pt").exists() and damage(path, read_manifest(path)) is None


def test_what_killed_saves_left_is_cleared_and_what_was_being_replaced_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-5.abc.tmp" / "x").mkdir(parents=True)
    (tmp_path / ".other.abc.tmp").mkdir()
    (tmp_path / ".checkpoint-6.abc.old").write_text("no folder")
    make(tmp_path, 4).rename(tmp_path / ".checkpoint-4.def.old")
    assert newest(tmp_path).step == 4 and (tmp_path / ".checkpoint-5.abc.tmp").is_dir()
    (tmp_path / "checkpoint-4").rename(tmp_path / ".checkpoint-4.def.old")
    (tmp_path / ".checkpoint-6.abc.old").unlink()
    assert clear_scratch(tmp_path, "checkpoint-*") == [".checkpoint-5.abc.tmp"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.abc.tmp", "checkpoint-4"]
    assert problem(tmp_path / "checkpoint-4") is None


def test_a_folder_that_cannot_be_replaced_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, 4)
    real, count = Path.replace, 0

    def second_fails(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == 2:
            raise OSError("no")
        return real(self, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no"), atomic_folder(tmp_path / "checkpoint-4"):
        patch.setattr(Path, "replace", second_fails)
    assert problem(tmp_path / "checkpoint-4") is None


def test_a_copy_is_a_copy_and_the_next_goes_into_the_same_memory() -> None:
    shared = torch.arange(4.0)
    tree = {"a": shared, "b": [shared, torch.tensor(7)], "transposed": torch.arange(6).reshape(2, 3).T, "n": (1, None)}
    buffers = Buffers()
    assert buffers.needed(tree) == 16 + 16 + 8 + 48
    buffers.prepare(tree)
    first = buffers.copy(tree)
    assert first["a"] is first["b"][0] and first["n"] == (1, None)
    assert torch.equal(first["transposed"], tree["transposed"])
    places = {tensor.data_ptr() for tensor in (first["a"], first["b"][1], first["transposed"])}
    shared += 1
    assert first["a"].tolist() == [0, 1, 2, 3]
    second = buffers.copy(tree)
    assert second["a"].tolist() == [1, 2, 3, 4]
    assert {tensor.data_ptr() for tensor in (second["a"], second["b"][1], second["transposed"])} == places


def test_copies_of_what_lies_on_a_gpu_take_a_power_of_two() -> None:
    with FakeTensorMode():
        there = {"a": torch.empty(3, 100, device="cuda"), "none": torch.empty(0, device="cuda")}
    assert Buffers.needed(there) == 2048 and Buffers.needed({"a": torch.empty(3, 100)}) == 1200


def test_the_writer_hands_over_what_became_of_a_save() -> None:
    writer = Writer()
    assert writer.result() is None

    def fails() -> int:
        raise OSError("disk full")

    writer.start(1, lambda: 5)
    done = writer.result()
    assert done is not None and (done.step, done.bytes, done.error) == (1, 5, None)
    writer.start(2, fails)
    failed = writer.result()
    assert failed is not None and isinstance(failed.error, OSError)
    assert writer.result() is None and not writer.busy

    def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.now(3, interrupted)
    assert writer.result() is None


def test_differences_are_told_one_by_one() -> None:
    before = {"examples": 1000, "steps": 30, "learning_rate": 0.1, "gone": 1}
    assert plan_differences(before, dict(before)) == []
    assert plan_differences(before, {"examples": 999, "steps": 30, "learning_rate": 0.2}) == [
        "training examples: 1,000, now 999",
        "learning_rate: 0.1, now 0.2",
    ]


def test_elsewhere_is_said_only_elsewhere() -> None:
    about = {"versions": {"torch": "2.13"}, "machine": {"cpu": "A", "torch_threads": 2}}
    assert elsewhere(about, {"torch": "2.13"}, {"cpu": "A", "torch_threads": 2}) is None
    line = elsewhere(about, {"torch": "2.14"}, {"cpu": "B", "torch_threads": 2})
    assert line is not None and "torch 2.13 → 2.14" in line and "cpu A → B" in line and "bits" in line
    kernels = elsewhere({"machine": {"matrix_kernels": "A"}}, {}, {"matrix_kernels": "B"})
    assert kernels is not None and "matrix kernels A → B" in kernels
