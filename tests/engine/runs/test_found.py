"""What lies in a folder: nothing, a run to go on with, a finished one, or what must not be written over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmtrain.core.errors import UserError
from lmtrain.engine.runs import found
from lmtrain.engine.runs.found import Found, refuse_other_runs_results, require_unchanged, require_usable
from lmtrain.engine.runs.run_folder import RunFolder

OPTIONS = {"learning_rate": 1e-3, "output_dir": "x", "train_file": ["a.txt"], "logging_steps": 10}


def begin(folder: Path, state: str = "training", step: int = 0) -> None:
    with RunFolder(folder) as run:
        run.describe("clm", ["--train_file", "a.txt"], OPTIONS)
        run.status(state, step=step)


def look(folder: Path, command: str = "clm", overwrite: bool = False, **changed: object) -> Found:
    options = {**OPTIONS, **changed}
    here = found.look(folder, command, options, overwrite=overwrite)
    require_usable(folder, here, options)
    return here


def test_nothing_there_or_only_foreign_small_files_is_a_start(tmp_path: Path) -> None:
    assert look(tmp_path / "new").state == "new"
    assert not (tmp_path / "new").exists(), "looking makes nothing"
    (tmp_path / "notes.txt").write_text("set up by a script")
    assert look(tmp_path).state == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt"]


def test_unfinished_is_resumed_from_the_newest_complete_checkpoint(tmp_path: Path) -> None:
    begin(tmp_path)
    assert look(tmp_path) == Found("unfinished")
    for step in (5, 100, 20):
        (tmp_path / f"checkpoint-{step}" / "global_step").mkdir(parents=True)
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (tmp_path / "checkpoint-500").mkdir()  # begun and never completed
    (tmp_path / "checkpoint-100").rename(tmp_path / ".checkpoint-100.0a1b2c3d.old")  # killed while it was replaced
    found = look(tmp_path)
    assert (found.state, found.step, found.checkpoint) == ("unfinished", 100, tmp_path / "checkpoint-100")
    assert found.passed_over == ("checkpoint-500: trainer_state.json is missing",)
    require_unchanged(tmp_path, found.seen)


def test_finished_is_said(tmp_path: Path) -> None:
    begin(tmp_path, "finished", step=7)
    free = {"logging_steps": 1, "output_dir": "elsewhere", "dataloader_multiprocessing_context": "spawn"}
    assert look(tmp_path, **free) == Found("finished", step=7)


def test_another_run_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(UserError, match=r"--learning_rate was 0.001 and is now 0.5") as caught:
        look(tmp_path, learning_rate=0.5)
    assert "--overwrite_output_dir" in str(caught.value)
    with pytest.raises(UserError, match="made by lmtrain clm"):
        look(tmp_path, command="mlm")
    assert look(tmp_path, learning_rate=0.5, overwrite=True).state == "new"


def test_accepted_changes_go_on_even_from_the_end(tmp_path: Path) -> None:
    begin(tmp_path, "finished", step=7)
    assert look(tmp_path, accept_changes=True).state == "finished"
    assert look(tmp_path, learning_rate=0.5, accept_changes=True).state == "unfinished"
    with pytest.raises(UserError, match="made by lmtrain clm"):
        look(tmp_path, command="mlm", accept_changes=True)


def test_a_finished_run_is_extended_by_more_steps_and_by_nothing_else(tmp_path: Path) -> None:
    begin(tmp_path, "finished", step=7)
    with pytest.raises(UserError, match="or --extend to go on for longer"):
        look(tmp_path, num_train_epochs=5.0)
    assert look(tmp_path, num_train_epochs=5.0, extend=True).state == "unfinished"
    assert look(tmp_path, extend=True) == Found("finished", step=7), "nothing more was asked for"
    with pytest.raises(UserError, match=r"num_train_epochs was None and is now 2\.0"):
        look(tmp_path, num_train_epochs=2.0, extend=True)  # three is what it had
    with pytest.raises(UserError, match="learning_rate") as caught:
        look(tmp_path, num_train_epochs=5.0, learning_rate=0.5, extend=True)
    assert "num_train_epochs" not in str(caught.value), "that is what --extend is for"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json", "checkpoint-10"])
def test_somebody_elses_model_is_not_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir() if name.startswith("checkpoint") else (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match="would write over"):
        look(tmp_path)


def test_a_file_or_a_forbidden_place_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_text("x")
    with pytest.raises(UserError, match="is a file"):
        look(file)
    with pytest.raises(UserError, match="is a file"):
        look(file / "below")
    with pytest.raises(UserError, match="cannot be written"):
        look(Path("/proc/lmtrain-test"))
    assert file.read_text() == "x"


def test_a_damaged_record_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{half")
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        look(tmp_path)
    begin(tmp_path / "run", "finished")
    for status in ("{}", "[]", "{half"):  # how far it came is not known
        (tmp_path / "run" / "status.json").write_text(status)
        assert look(tmp_path / "run") == Found("unfinished")


def test_a_checkpoint_without_optimizer_is_no_place_to_go_on(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.describe("clm", [], {**OPTIONS, "save_only_model": True})
        run.status("training", step=5)
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text("{}")
    assert look(tmp_path, save_only_model=True) == Found("unfinished")


def test_results_of_another_model_are_not_written_over_a_run(tmp_path: Path) -> None:
    begin(tmp_path / "run", "finished")
    with pytest.raises(UserError, match="another model than gpt2"):
        refuse_other_runs_results(tmp_path / "run", "gpt2")
    refuse_other_runs_results(tmp_path / "run", f"{tmp_path}/run/../run")
    refuse_other_runs_results(tmp_path / "new", "gpt2")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        refuse_other_runs_results(tmp_path / "file", "gpt2")
