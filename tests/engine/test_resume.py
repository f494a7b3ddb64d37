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


def test_starting_over_beside_a_checkpoint_is_not_a_matter_of_resuming(tmp_path: Path) -> None:
    assert resume_point("false", Found("new")) == Found("new")
    with pytest.raises(UserError, match="--overwrite_output_dir"):
        resume_point("false", Found("unfinished", tmp_path, 4))


def test_what_training_cannot_go_on_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        resume_point(str(tmp_path / "nothing"), Found("new"))
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="no checkpoint of a run"):
        resume_point(str(tmp_path / "model"), Found("new"))
    weights = checkpoint(tmp_path / "checkpoint-3", 3, optimizer=False)
    with pytest.raises(UserError, match="no optimizer state"):
        resume_point(str(weights), Found("new"))


def data(**keys: str) -> dict[str, dict[str, dict[str, str]]]:
    return {"stores": {split: {"key": key} for split, key in keys.items()}}


def test_a_run_goes_on_with_the_text_it_began_with(tmp_path: Path) -> None:
    require_same_data(tmp_path, data(train="a"))  # nothing was written yet
    (tmp_path / "data.json").write_text(json.dumps(data(train="a", validation="b")))
    require_same_data(tmp_path, data(train="a", validation="b"))
    require_same_data(tmp_path, data(train="a", test="c"))
    with pytest.raises(UserError, match="the train text or its tokenizer has changed"):
        require_same_data(tmp_path, data(train="x", validation="b"))
