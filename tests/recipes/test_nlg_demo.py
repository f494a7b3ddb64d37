"""The data-to-text demo in a few steps: every stage runs, and the same call takes over what was done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from interrupting import logged_losses, signalled
from lmtrain.cli.main import main
from lmtrain.config.commands.nlg import NlgDemoOptions
from lmtrain.core.errors import ExitCode
from lmtrain.engine.checkpoints.read import newest
from lmtrain.recipes.data_to_text import demo
from lmtrain.recipes.data_to_text.demo import Shown, run_nlg_demo
from lmtrain.recipes.data_to_text.table import before_and_after

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[NlgDemoOptions, Shown]:
    """The demo in a few steps, and what came out."""
    folder = tmp_path_factory.mktemp("made")
    options = NlgDemoOptions(output_dir=str(folder / "demo"), minutes=0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMTRAIN_CACHE", str(folder / "cache"))
        patch.setenv("PATH", str(folder))  # no Java: METEOR would start it twice
        return options, run_nlg_demo(options, say=lambda topic, text: None, inputs=4)


def test_from_nothing_to_scores_before_and_after(
    made: tuple[NlgDemoOptions, Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    options, shown = made
    assert shown.before.inputs == shown.after.inputs == 4
    assert shown.after.values["BLEU"] is not None and shown.after.values["METEOR"] is None
    assert len(shown.samples) == 3 and all(context and reference for context, _, _, reference in shown.samples)
    table = before_and_after(shown.before, shown.after).as_text()
    assert table.splitlines()[2].startswith("before training") and "METEOR: not computed" in table
    left = {path.name for path in Path(options.output_dir).iterdir()}
    assert left >= {"corpus", "tokenizer", "base", "data", "adapted"}

    monkeypatch.setattr(demo, "train_tokenizer", None)
    monkeypatch.setattr("lmtrain.recipes.data_to_text.decoding.beam_search", None)
    again = run_nlg_demo(options, say=lambda topic, text: None, inputs=4)
    assert again == shown


def test_a_signal_saves_it_and_the_same_command_goes_on(
    made: tuple[NlgDemoOptions, Shown],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    out = tmp_path / "demo"
    for name in ("corpus", "tokenizer", "data"):  # which take longest
        shutil.copytree(Path(made[0].output_dir) / name, out / name)
    words = ["nlg", "demo", "--minutes", "20", "--output_dir", str(out), "--overwrite_output_dir"]
    with signalled(logged_losses(out / "base")):
        assert main(words) == ExitCode.INTERRUPTED
    found = newest(out / "base")
    assert found.checkpoint is not None and found.step > 0
    capsys.readouterr()
    with signalled(logged_losses(out / "base", 2)):  # the rest would take its time
        assert main(words) == ExitCode.INTERRUPTED
    assert f"goes on from step {found.step}" in capsys.readouterr().err
    assert newest(out / "base").step > found.step
