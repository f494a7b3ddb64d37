"""What a command that trains several times does with its folder, without a training: tests/recipes have those too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmtrain.core.console import silent
from lmtrain.core.errors import UserError
from lmtrain.engine.runs.run_folder import RunFolder
from lmtrain.recipes.several_trainings import Trainings, look_at

ARGV, NAMES = ["nlg", "e2e"], ["seed-1", "seed-2"]


def asked(folder: Path, argv: list[str] = ARGV, *, overwrite: bool = True, **options: Any) -> Trainings:
    return look_at(folder, "nlg", {"overwrite_output_dir": overwrite, **options}, argv, NAMES, silent)


def anew(trainings: Trainings) -> list[str]:
    return [name for name in NAMES if trainings.begins_anew(name)]


def a_run(folder: Path, state: str = "finished") -> None:
    with RunFolder(folder) as run:
        run.describe("sft", ARGV, {"begun": str(list(folder.iterdir()))})
        run.status(state)
    (folder / "model.safetensors").write_text(state)


def begun(folder: Path, state: str | None = None) -> None:
    """Interrupted when the second training has come to ``state``, the first one is finished."""
    with pytest.raises(KeyboardInterrupt), asked(folder).begun():
        a_run(folder / "seed-1")
        if state is not None:
            a_run(folder / "seed-2", state)
        raise KeyboardInterrupt


def test_what_an_earlier_command_left_goes_once(tmp_path: Path) -> None:
    for name in NAMES:
        a_run(tmp_path / name)
    assert anew(asked(tmp_path)) == NAMES
    begun(tmp_path)
    assert anew(asked(tmp_path)) == ["seed-2"], "still the earlier command's"
    begun(tmp_path, "training")
    assert anew(asked(tmp_path)) == []
    assert anew(asked(tmp_path, [*ARGV, "--max_steps=3"])) == anew(asked(tmp_path, num_beams=3)) == NAMES
    assert anew(asked(tmp_path, overwrite=False)) == []
    with asked(tmp_path).begun():
        pass
    assert anew(asked(tmp_path)) == NAMES, "it has ended"


def test_a_removal_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    begun(tmp_path, "training")
    (tmp_path / "seed-2" / "run.json").unlink()
    assert anew(asked(tmp_path)) == ["seed-2"]


def test_the_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.describe("clm", [], {})
    with pytest.raises(UserError, match="it was made by lmtrain clm"):
        asked(tmp_path, overwrite=False)
    with asked(tmp_path / "mine", overwrite=False).begun(), pytest.raises(UserError, match="another process"):
        asked(tmp_path / "mine")
