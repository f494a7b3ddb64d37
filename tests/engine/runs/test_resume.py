"""Where a run goes on, from what the user says and what lies in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmtrain.core.errors import UserError
from lmtrain.engine.runs.found import Found
from lmtrain.engine.runs.resume import require_same_data, where_to_begin
from lmtrain.engine.runs.run_folder import RunFolder


def checkpoint(folder: Path, step: int, *, optimizer: bool = True) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    if optimizer:
        (folder / "optimizer_0").mkdir()
    return folder


def begin(folder: Path, asked: str | None = None) -> Found:
    """As any other command than the one that began what lies there."""
    return where_to_begin(folder, "clm", {"resume_from_checkpoint": asked}, ["another"])


def a_run(folder: Path, step: int, *, optimizer: bool = True) -> Path:
    """Unfinished; returns its checkpoint."""
    with RunFolder(folder) as run:
        run.describe("clm", [], {})
        run.status("training", step=step)
    return checkpoint(folder / f"checkpoint-{step}", step, optimizer=optimizer)


@pytest.mark.parametrize("word", ["True", "yes", "false", "No"])
def test_other_words_for_the_newest_and_for_none(tmp_path: Path, word: str) -> None:
    place = a_run(tmp_path, 4)
    found, none = begin(tmp_path, word), word in ("false", "No")
    assert (found.checkpoint, found.set_aside) == ((None, (place,)) if none else (place, ()))
    assert begin(tmp_path / "new", word) == Found("new")


def test_what_training_cannot_go_on_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        begin(tmp_path / "run", str(tmp_path / "nothing"))
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="no checkpoint of a run"):
        begin(tmp_path / "run", str(tmp_path / "model"))
    weights = checkpoint(tmp_path / "checkpoint-3", 3, optimizer=False)
    with pytest.raises(UserError, match="no optimizer state"):
        begin(tmp_path / "run", str(weights))


@pytest.mark.parametrize("prefix", ["", "bf16_"])
def test_what_deepspeed_saved_goes_on_with_as_many_processes(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in the folder or named; one that was converted to its universal format goes on with any number."""
    run = tmp_path / "run"
    place = a_run(run, 7, optimizer=False)
    (place / "latest").write_text("global_step7\n")
    (place / "global_step7").mkdir()
    for rank in range(4):
        for kind in ("model", "optim"):
            (place / "global_step7" / f"{prefix}zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt").touch()
    asked = ((run, None), (tmp_path / "new", str(place)))
    found = Found("unfinished", place, 7)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert [begin(*each) for each in asked] == [found, found]
    for world, words in {"2": "there are 2; start as many", "1": "there is 1; start as many"}.items():
        monkeypatch.setenv("WORLD_SIZE", world)
        for each in asked:
            with pytest.raises(UserError, match=f"saved by DeepSpeed on 4 processes.* {words}"):
                begin(*each)
    (place / "latest_universal").write_text("global_step7_universal")
    assert begin(run) == found


def data(**keys: str) -> dict[str, dict[str, dict[str, str]]]:
    return {"stores": {split: {"key": key} for split, key in keys.items()}}


def test_a_run_goes_on_with_the_text_it_began_with(tmp_path: Path) -> None:
    require_same_data(tmp_path, data(train="a"))  # nothing was written yet
    (tmp_path / "data.json").write_text(json.dumps(data(train="a", validation="b")))
    require_same_data(tmp_path, data(train="a", validation="b"))
    require_same_data(tmp_path, data(train="a", test="c"))
    with pytest.raises(UserError, match="the train text or its tokenizer has changed"):
        require_same_data(tmp_path, data(train="x", validation="b"))
