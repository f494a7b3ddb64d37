"""The demo in miniature: the real chain on a part of the standard library, for some seconds."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from interrupting import logged_losses, signalled
from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode
from lmtrain.engine.checkpoints.read import newest
from lmtrain.recipes.corpus import standard_library


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Some packages of the standard library: enough files for a held-out part, little enough for seconds."""
    for package in ("asyncio", "email", "concurrent", "importlib", "json", "logging", "unittest", "xml"):
        shutil.copytree(standard_library() / package, tmp_path / "lib" / package)
    return tmp_path / "lib"


def test_from_nothing_to_a_model_that_writes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "my demo"
    words = ["demo", "--source", str(source), "--vocab_size", "400", "--minutes", "0.04", "--output_dir", str(out)]
    assert main(words) == 0
    captured = capsys.readouterr()
    for topic in ("corpus", "tokenizer", "store", "model", "plan", "train", "result"):
        assert f"● {topic}" in captured.err
    assert captured.err.count("\ntrain ") == 1, "the trial that measures a step is not shown"
    for figure in ("training loss", "validation loss", "perplexity", "tokens/s", "bits per byte", "gzip -9", "xz -9"):
        assert figure in captured.out
    assert captured.out.count("┌") == 3, "three completions"
    train, write = (shlex.split(line.partition("lmtrain ")[2]) for line in captured.out.splitlines()[-2:])
    assert "Your turn" in captured.out and str(out / "tokenizer") in train and str(out) in write
    AutoModelForCausalLM.from_pretrained(out)
    assert len(AutoTokenizer.from_pretrained(out)) == 400
    decided = json.loads((out / "decisions.json").read_text())["max_steps"]
    assert json.loads((out / "trainer_state.json").read_text())["global_step"] == decided

    assert main(words) == 0, "once more: it shows what came out and trains nothing"
    again = capsys.readouterr()
    assert "is finished" in again.err and "--extend" not in again.err, "which is no option of this command"
    assert "● train" not in again.err
    assert "bits per byte" in again.out

    for other in (["--vocab_size", "500"], ["--source", str(source / "json")]):
        assert main([*words, *other]) == ExitCode.WRONG_INPUT, "its scores would be beside files of another demo"
        told = capsys.readouterr().err
        assert f"{other[0]} was" in told and "--overwrite_output_dir" in told and "● corpus" not in told


def test_a_folder_of_text_instead_and_begun_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "notes" / ".git").mkdir(parents=True)
    (tmp_path / "notes" / ".git" / "config").write_text("not a note\n")
    for number in range(200):
        text = f"Note {number} of the day: the wind was {number % 7} and the sea as it is.\n" * 20
        (tmp_path / "notes" / f"{number}.md").write_text(text)
    words = ["demo", "--source", str(tmp_path / "notes"), "--minutes", "0.02", "--output_dir", str(tmp_path / "demo")]
    assert main([*words, "--vocab_size", "300"]) == 0
    told = capsys.readouterr()
    assert "┌" in told.out and "│ Note" in told.out, "the prompts are beginnings of held-out notes"
    held_out = len(list((tmp_path / "demo" / "corpus" / "held_out").iterdir()))
    assert f"● corpus     {200 - held_out} files of {tmp_path / 'notes'}, " in told.err and held_out > 0
    assert main([*words, "--vocab_size", "320", "--overwrite_output_dir"]) == 0
    assert len(AutoTokenizer.from_pretrained(tmp_path / "demo")) == 320


def test_a_signal_saves_it_and_the_same_command_goes_on(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "demo"
    words = ["demo", "--source", str(source), "--vocab_size", "400", "--minutes", "20", "--output_dir", str(out),
             "--overwrite_output_dir"]  # fmt: skip
    with signalled(logged_losses(out)):
        assert main(words) == ExitCode.INTERRUPTED
    told = capsys.readouterr()
    assert "the same command goes on" in told.err and "bits per byte" not in told.out
    found = newest(out)
    assert found.checkpoint is not None and not found.passed_over
    decided = json.loads((out / "decisions.json").read_text())["max_steps"]
    assert 0 < found.step < decided
    with signalled(logged_losses(out, 2)):  # the rest would take its time
        assert main(words) == ExitCode.INTERRUPTED
    assert f"goes on from step {found.step}" in capsys.readouterr().err
    assert found.step < newest(out).step < decided
    assert json.loads((out / "decisions.json").read_text())["max_steps"] == decided
