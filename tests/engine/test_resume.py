"""Where a run goes on, from what the user says and what lies in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmtrain.core.errors import UserError
from lmtrain.engine.found import Found
from lmtrain.engine.resume import require_same_data, resume_point


def checkpoint(folder: Path, step: int, *, optimizer: bool = True) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    if optimizer:
        (folder / "optimizer_0").mkdir()
    return folder


@pytest.mark.parametrize("asked", [None, "true", "True"])
def test_by_default_the_newest_checkpoint_or_the_beginning(tmp_path: Path, asked: str | None) -> None:
    found = Found("unfinished", tmp_path / "checkpoint-4", 4)
    assert resume_point(asked, found) == found
    assert resume_point(asked, Found("new")) == Found("new")


def test_a_named_checkpoint_tells_its_step(tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "checkpoint-7", 7)
    assert resume_point(str(place), Found("new")) == Found("unfinished", place, 7)


@pytest.mark.parametrize("never", ["never", "false", "No"])
def test_starting_over_beside_a_checkpoint_sets_it_aside(tmp_path: Path, never: str) -> None:
    assert resume_point(never, Found("new")) == Found("new")
    place = checkpoint(tmp_path / "checkpoint-4", 4)
    point = resume_point(never, Found("unfinished", place, 4), tmp_path)
    assert (point.state, point.checkpoint, point.set_aside) == ("new", None, (place,))


def test_what_training_cannot_go_on_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        resume_point(str(tmp_path / "nothing"), Found("new"))
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="no checkpoint of a run"):
        resume_point(str(tmp_path / "model"), Found("new"))
    weights = checkpoint(tmp_path / "checkpoint-3", 3, optimizer=False)
    with pytest.raises(UserError, match="no optimizer state"):
        resume_point(str(weights), Found("new"))


@pytest.mark.parametrize("prefix", ["", "bf16_"])
def test_what_deepspeed_saved_goes_on_with_as_many_processes(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in the folder or named; one that was converted to its universal format goes on with any number."""
    place = checkpoint(tmp_path / "checkpoint-7", 7, optimizer=False)
    (place / "latest").write_text("global_step7\n")
    (place / "global_step7").mkdir()
    for rank in range(4):
        for kind in ("model", "optim"):
            (place / "global_step7" / f"{prefix}zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt").touch()
    found = Found("unfinished", place, 7)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert resume_point(None, found) == found == resume_point(str(place), Found("new"))
    for world, words in {"2": "there are 2; start as many", "1": "there is 1; start as many"}.items():
        monkeypatch.setenv("WORLD_SIZE", world)
        for asked, known in ((None, found), (str(place), Found("new"))):
            with pytest.raises(UserError, match=f"saved by DeepSpeed on 4 processes.* {words}"):
                resume_point(asked, known)
    (place / "latest_universal").write_text("global_step7_universal")
    assert resume_point(None, found) == found


def data(**keys: str) -> dict[str, dict[str, dict[str, str]]]:
    return {"stores": {split: {"key": key} for split, key in keys.items()}}


def test_a_run_goes_on_with_the_text_it_began_with(tmp_path: Path) -> None:
    require_same_data(tmp_path, data(train="a"))  # nothing was written yet
    (tmp_path / "data.json").write_text(json.dumps(data(train="a", validation="b")))
    require_same_data(tmp_path, data(train="a", validation="b"))
    require_same_data(tmp_path, data(train="a", test="c"))
    with pytest.raises(UserError, match="the train text or its tokenizer has changed"):
        require_same_data(tmp_path, data(train="x", validation="b"))
